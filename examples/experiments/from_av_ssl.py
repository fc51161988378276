"""Everything that these programs import from av_ssl; what else they need of it are its commands."""

# ruff: noqa: F401
from av_ssl import load
from av_ssl.analysis.plots import Figure, draw_noise, new_figure, save, style_of
from av_ssl.data.labels import LabelFile
from av_ssl.data.reading import read_crops, read_wave
from av_ssl.data.spans import SpanMask, draw_spans
from av_ssl.errors import DataError
from av_ssl.io import write_atomically
from av_ssl.layout import SAMPLE_RATE, SAMPLES_PER_FRAME
from av_ssl.manifest import Clip, manifest_text, read_manifest
