"""The jobs that make the toy corpus and training data of it."""

import sys
from pathlib import Path

from jobs import Job
from sizes import Size

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]


class Corpus:
    """Talking faces in ``out/corpus`` and training data made of them in ``out/data``.

    Args:
        seed: of the faces and voices, and of the clips that are labelled.
    """

    def __init__(self, out: Path, size: Size, seed: int) -> None:
        self.size, self.seed = size, seed
        self.videos, self.data = out / "corpus", out / "data"
        self.labelled, self.noise = self.data / f"labelled_{size.labelled}", self.data / "noise"
        self.long = self.data / "long"

    def making(self) -> Job:
        size = self.size
        options = f"--train {size.train} --valid 8 --test {size.test} --speakers {size.speakers}"
        options += f" --difficulty 0.25 --seed {self.seed} --workers 2"
        script = str(HERE / "make_corpus.py")
        return Job("corpus", (sys.executable, script, str(self.videos), *options.split()), own_progress=True)

    def preprocessing(self) -> Job:
        options = f"--workers 2 --size 48 --stride 3 --vocab-type word --seed {self.seed}"
        options += f" --labelled {self.size.labelled}"
        script = str(REPOSITORY / "preprocess" / "folder.sh")
        command = ("bash", script, str(self.videos), str(self.data), *options.split())
        return Job("preprocess", command, own_progress=True, after=(self.making(),))

    def lengthening(self) -> Job:
        """Test clips, two joined to one."""
        command = (sys.executable, str(HERE / "long_clips.py"), str(self.labelled), str(self.long))
        return Job("long_clips", command, after=(self.preprocessing(),))
