"""Teachers that do not fit the student."""

import pytest

from av_ssl.classification.lupi import FrozenTeacher, check_alike
from av_ssl.data.classes import ClassList
from av_ssl.errors import DataError
from tests.models.classifiers import classifier

TASK = {"normalize": True, "image_crop_size": 88, "segment_frames": 0, "segment_hop": 0}
KEYS = ("normalize", "image_crop_size")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"normalize": False}, r"task\.normalize=False, but the teacher t\.pt .* normalize=True"),
        ({"image_crop_size": 44}, r"image_crop_size=44, .* image_crop_size=88"),
        ({"segment_frames": 10}, r"clips are cut into segments of 10 frames every 10, .* t\.pt were whole"),
    ],
)
def test_another_task_is_refused(own, message):
    check_alike("t.pt", TASK, dict(TASK), KEYS)
    with pytest.raises(DataError, match=message):
        check_alike("t.pt", TASK, {**TASK, **own}, KEYS)


def test_other_segments_are_refused():
    stored = {**TASK, "segment_frames": 10, "segment_hop": 10}
    check_alike("t.pt", stored, {**stored, "segment_hop": 0}, KEYS)  # which is the length
    with pytest.raises(DataError, match=r"10 frames every 5, those of the teacher .* 10 frames every 10;"):
        check_alike("t.pt", stored, {**stored, "segment_hop": 5}, KEYS)
    with pytest.raises(DataError, match=r"segments of 20 frames every 10, .* 10 frames every 10"):
        check_alike("t.pt", stored, {**stored, "segment_frames": 20}, KEYS)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["calm", "sour", "glad"], "e.g. glad, here sour"),
        (["calm", "glad"], "e.g. 3 classes, here 2"),
        (["calm", "glad", "sour", "wry"], "e.g. 3 classes, here 4"),
    ],
)
def test_soft_labels_of_other_classes_are_refused(names, message):
    model = classifier()
    model.class_names = ["calm", "glad", "sour"]
    teacher = FrozenTeacher(model, "none")
    teacher.check_classes(ClassList(["calm", "glad", "sour"], "classes.emo.txt"))
    with pytest.raises(DataError, match=rf"not those of classes\.emo\.txt \({message}"):
        teacher.check_classes(ClassList(names, "classes.emo.txt"))
