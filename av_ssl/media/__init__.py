"""Video and audio files: reading and writing, face tracking, mouth crops, noise recordings.

Nothing here imports torch or fairseq, so data can be prepared where neither is installed.
"""

from __future__ import annotations

INSTALL = {
    "cv2": "pip install opencv-python-headless",
    "mediapipe": "pip install --no-deps mediapipe==0.10.21 && pip install absl-py attrs flatbuffers "
    '"protobuf<5" (Python 3.10 to 3.12; later versions hold no models)',
    "dlib": "pip install 'av_ssl[dlib]'",
}
"""How to install the modules of the back-ends that find landmarks. This file imports none of them."""
