"""Packaging of av_ssl; settings of the tools are in pyproject.toml, exact versions in requirements/.

What is not here: fairseq among the plain requirements.  fairseq 0.12.2 needs omegaconf 2.0, whose metadata
pip 24.1 and later refuse, so with it `pip install .` would fail on every current pip.  It is an extra:

    pip install .                                  # any pip
    python -m av_ssl.compat.install_fairseq        # any pip: reads the extra, installs it with an older pip

`pip install ".[fairseq]"` does both with pip < 24.1, and takes along torchaudio, which fairseq declares.
"""

import re
from pathlib import Path

from setuptools import Distribution, find_packages, setup

SOURCE = Path("av_ssl/__init__.py").read_text(encoding="utf-8")
VERSION = re.findall(r'^__version__ = "(.+)"$', SOURCE, re.MULTILINE)[0]

CORE = [
    "editdistance>=0.6",  # word error rate in fairseq-generate
    "numpy>=1.26",
    "opencv-python-headless>=4.11,<6",
    "sentencepiece>=0.2",
    "soundfile>=0.12",
    "tensorboard>=2.15",
    "torch>=2.1",
    "tqdm>=4.64",
]
# What fairseq 0.12.2 and hydra 1.0.7 import; both are installed without their dependencies.
OF_FAIRSEQ = [
    "antlr4-python3-runtime==4.8",
    "bitarray",
    "cffi",
    "PyYAML>=5.1",
    "regex",
    "sacrebleu>=2.3",
    "typing-extensions",
]

DLIB = "dlib-bin>=20"  # dlib, compiled
GRADIO = "gradio>=6"
HUB = "huggingface-hub>=0.30"
MATPLOTLIB = "matplotlib>=3.8"
MKDOCS = "mkdocs-material>=9.6"
ONNX = ["onnx>=1.16", "onnxruntime>=1.17"]
PYAV = "av>=14,<19"
SAFETENSORS = "safetensors>=0.4"
SCIKIT_IMAGE = "scikit-image>=0.22"
SCIKIT_LEARN = "scikit-learn>=1.3"
SUBMITIT = "submitit>=1.5"
TRANSFORMERS = "transformers>=4.40"


class InstallIntoSitePackages(Distribution().get_command_class("install_data")):
    """Puts data_files, which is the .pth file alone, beside the packages, where Python looks for it."""

    def finalize_options(self) -> None:
        self.set_undefined_options("install", ("install_lib", "install_dir"))
        super().finalize_options()


class EditableDistribution(Distribution):
    """Lets an editable install run `install_data`, too: setuptools asks a method that it does not define."""

    def has_data(self) -> bool:
        return self.has_data_files()


setup(
    name="av_ssl",
    version=VERSION,
    description="Self-supervised audio-visual speech models as a plugin for stock fairseq",
    long_description=Path("README.md").read_text(encoding="utf-8") if Path("README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="MIT",
    author="av_ssl contributors",
    python_requires=">=3.10,<3.14",
    # Named, so that an editable install is a path in a .pth file instead of an import hook: that one would
    # cost every start of Python 20 ms.
    package_dir={"": "."},
    packages=[*find_packages(include=["av_ssl", "av_ssl.*"]), "av_ssl_fairseq_hook"],
    package_data={"av_ssl": ["py.typed", "media/models/*"]},
    data_files=[("", ["av_ssl_fairseq_hook.pth"])],
    distclass=EditableDistribution,
    cmdclass={"install_data": InstallIntoSitePackages},
    entry_points={"console_scripts": ["av-ssl = av_ssl.cli.main:main"]},
    install_requires=[*CORE, *OF_FAIRSEQ],
    extras_require={
        "fairseq": ["fairseq==0.12.2", "hydra-core==1.0.7", "omegaconf==2.0.6"],
        "preprocess": [PYAV],
        "clusters": [SCIKIT_LEARN],
        "slurm": [SUBMITIT],
        "dlib": [DLIB],
        "convert": [SAFETENSORS],
        "hub": [HUB, SAFETENSORS],
        "onnx": ONNX,
        "demo": [GRADIO, PYAV],
        "plot": [MATPLOTLIB, SCIKIT_LEARN],
        "teachers": [SCIKIT_LEARN, TRANSFORMERS],
        "toy": [PYAV, "espeakng-loader>=0.2.4", MATPLOTLIB, SCIKIT_IMAGE],
        "docs": [MKDOCS],
        "dev": [
            GRADIO,
            HUB,
            MKDOCS,
            MATPLOTLIB,
            *ONNX,
            PYAV,
            SAFETENSORS,
            SCIKIT_IMAGE,
            SCIKIT_LEARN,
            SUBMITIT,
            TRANSFORMERS,
            "mypy",
            "pytest>=8",
            "pytest-xdist>=3.5",
            "python_speech_features==0.6",
            "ruff",
        ],
    },
    zip_safe=False,
)
