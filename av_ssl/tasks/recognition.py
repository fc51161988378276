"""Speech recognition from audio (ASR), video (VSR) or both (AVSR)."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import editdistance
from fairseq.data import Dictionary
from fairseq.logging import metrics
from fairseq.tasks import register_task

from av_ssl.checkpoints.stored import StoredModel
from av_ssl.compat.keys import option
from av_ssl.data.clip_reader import ClipReader, TimeMask
from av_ssl.data.labels import TextLabels
from av_ssl.data.text import TextEncoder, load_dictionary, text_state
from av_ssl.errors import DataError
from av_ssl.layout import TOKENIZER
from av_ssl.methods.teacher_heads import attach_teacher_shapes
from av_ssl.recognition.distillation import DistillationFineTuning, Recorder
from av_ssl.recognition.encoder import read_pretrained
from av_ssl.recognition.error_rates import ErrorReport
from av_ssl.recognition.generation import check_stored_dictionary, choose_search, decode_output, save_options
from av_ssl.recognition.heads import CTCModel, Seq2SeqModel
from av_ssl.recognition.hybrid_criterion import PER_CLIP
from av_ssl.tasks.audio_visual import AudioVisualTask, AudioVisualTaskConfig, root_config
from av_ssl.tasks.data_wait import WatchedEpochs

logger = logging.getLogger(__name__)

WORD_ERRORS, WORDS = "_word_errors", "_words"
MEASURED = {
    "ctc": ("nll_loss", "uer", "wer", "raw_wer"),
    "hybrid_ctc_attention": (*PER_CLIP, "nll_loss", "ppl", "accuracy", "uer"),
    "label_smoothed_cross_entropy": ("nll_loss", "ppl", "accuracy", "n_correct", "total"),
}
"""What criteria measure in validation, besides the loss."""
TOLERATED_LENGTH = 2
"""Outputs of attention decoders in validation are cut at so many times the batch's longest transcript."""


@dataclass
class RecognitionConfig(AudioVisualTaskConfig):
    """Keys of labels, time masks (RAVEn's, with its strides) and decoding."""

    labels: str = option("wrd", "label files are {split}.LABELS, the dictionary dict.LABELS.txt")
    tokenizer: Optional[str] = option(
        None,
        "sentencepiece model; null: {label_dir}/spm.model if there is one; empty: none, the labels are "
        "symbols already",
    )
    time_mask_audio: float = option(
        0.0, "longest time mask of the audio in training, in seconds; 0: none (RAVEn: 0.6)"
    )
    time_mask_audio_stride: float = option(2.0, "a mask for every so many seconds")
    time_mask_video: float = option(
        0.0, "longest time mask of the video in training, in seconds; 0: none (RAVEn: 0.4)"
    )
    time_mask_video_stride: float = option(1.0, "a mask for every so many seconds")
    ctc_weight: float = option(
        0.1,
        "decoding of models with a CTC head and an attention decoder: weight of CTC's prefix scores, the "
        "decoder has the rest (default: RAVEn's); 0: fairseq's beam search, 1: CTC alone",
    )
    length_bonus: float = option(0.0, "decoding: added to the score for each token, in nats")
    pre_beam: float = option(
        1.5,
        "joint search: candidates for the next token, those most probable by the decoder, as a multiple of "
        "the beam (default: RAVEn's)",
    )
    valid_beam: int = option(
        1,
        "beam of the search that measures the word error rate of validation (wer in the log, for "
        "checkpoint.best_checkpoint_metric=wer); 1: greedy, 0: none is measured",
    )


@register_task("av_recognition", dataclass=RecognitionConfig)
class RecognitionTask(AudioVisualTask):
    """Clips with transcripts, for ``av_hubert_seq2seq``, ``av_hubert_ctc``, ``hybrid_ctc_attention`` models.

    The dictionary and the tokenizer are stored in the checkpoint (as plain strings and bytes in a tensor, no
    pickled objects), and a checkpoint whose dictionary differs from the data's is refused.

    Args:
        cfg: keys.
        text_encoder: of the model, for clips without transcripts; None: the data's.
    """

    cfg: RecognitionConfig

    def __init__(self, cfg: RecognitionConfig, text_encoder: Optional[TextEncoder] = None) -> None:
        super().__init__(cfg)
        self.dictionary_file = Path(cfg.label_dir or cfg.data) / f"dict.{cfg.labels}.txt"
        self.pretrained: StoredModel | None = None
        self.errors = ErrorReport()
        # If the data has none, this one is filled from the checkpoint; fairseq's commands hold it by then.
        self.text_encoder = text_encoder or TextEncoder(Dictionary(), origin=str(self.dictionary_file))
        if text_encoder is None and self.dictionary_file.exists():
            self.text_encoder = TextEncoder.load(self.dictionary_file, self.find_tokenizer())

    def find_tokenizer(self) -> Path | None:
        if self.cfg.tokenizer:
            return Path(self.cfg.tokenizer)
        beside = self.dictionary_file.parent / TOKENIZER
        return beside if self.cfg.tokenizer is None and beside.exists() else None

    @property
    def target_dictionary(self) -> Any:
        return self.text_encoder.dictionary

    def require_dictionary(self) -> None:
        """Raise DataError if neither the data nor a checkpoint gave one."""
        if self.text_encoder.is_empty and not self.dictionary_file.exists():
            raise DataError(
                f"{self.dictionary_file}: does not exist, so the folder is not ready for recognition: put "
                f"transcripts (a text file beside each video, or {{split}}.{self.cfg.labels} in the folder) "
                "there, then run av-ssl data vocabulary"
            )
        if self.text_encoder.is_empty:
            load_dictionary(self.dictionary_file)

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build a recogniser; for training, its encoder (configuration, weights) is ``model.w2v_path``'s."""
        self.require_dictionary()
        if not from_checkpoint:
            self.pretrained = read_pretrained(cfg, str(self.cfg.audio_input), str(self.cfg.modalities))
            attach_teacher_shapes(cfg)
            warn_if_always_frozen(cfg.freeze_finetune_updates, root_config(self.cfg))
        model = super().build_model(cfg, from_checkpoint)
        self.pretrained = None  # the model has its tensors
        if not isinstance(model, (CTCModel, Seq2SeqModel)):
            root = root_config(self.cfg)
            path = root.common_eval.path if root is not None else None
            raise DataError(
                f"{path or 'the checkpoint'}: holds a {cfg._name} model, a pre-trained encoder without a "
                "recognition head; fine-tune it first (model.w2v_path), then decode the result"
            )
        return model

    def build_criterion(self, cfg: Any) -> Any:
        """Build the criterion; ValueError if the model has speech teachers that it would not use."""
        criterion = super().build_criterion(cfg)
        if self.needs.teachers is not None and not isinstance(criterion, DistillationFineTuning):
            raise ValueError(
                "model.teachers is set, but this criterion does not distil: set "
                "criterion._name=distillation_finetuning and the present one as criterion.recognition"
            )
        return criterion

    def measured(self, criterion: Any) -> set[str]:
        known = MEASURED.get(str(criterion._name))
        return set() if known is None else {"loss", *known, *(["wer"] if self.cfg.valid_beam else [])}

    # -- validation in training ------------------------------------------------------------------------------

    def valid_step(self, sample: Any, model: Any, criterion: Any) -> tuple[Any, Any, dict[str, Any]]:
        """The criterion's results and, from the same pass, word errors of a search."""
        if self.cfg.valid_beam < 1:
            return super().valid_step(sample, model, criterion)
        recorder = Recorder(model)
        loss, sample_size, log = super().valid_step(sample, recorder, criterion)
        target, lengths = sample["target"].cpu(), (~sample["net_input"]["padding_mask"]).sum(1)
        found = decode_output(
            model, recorder.output, lengths, self.target_dictionary, self.cfg.valid_beam, self.cfg.ctc_weight,
            longest=TOLERATED_LENGTH * target.shape[1],
        )  # fmt: skip
        wanted = [self.text(tokens, reference=True).split() for tokens in target]
        pairs = zip(wanted, (self.text(tokens).split() for tokens in found), strict=True)
        errors = sum(editdistance.eval(*pair) for pair in pairs)
        return loss, sample_size, {**log, WORD_ERRORS: errors, WORDS: sum(map(len, wanted))}

    def reduce_metrics(self, logging_outputs: Any, criterion: Any) -> None:
        """Before the criterion's own, so that fairseq's ``ctc`` does not log another ``wer``."""
        if any(WORDS in log for log in logging_outputs):
            for key in (WORD_ERRORS, WORDS):
                # Several processes add them up as tensors.
                metrics.log_scalar(key, float(sum(log.get(key, 0) for log in logging_outputs)))
            metrics.log_derived(
                "wer", lambda meters: round(100 * meters[WORD_ERRORS].sum / max(1, meters[WORDS].sum), 3)
            )
        super().reduce_metrics(logging_outputs, criterion)

    def text(self, tokens: Any, reference: bool = False) -> str:
        """Words of a hypothesis, or of a transcript, whose unknown symbols equal none of a hypothesis."""
        dictionary = self.target_dictionary
        specials = {dictionary.bos(), dictionary.pad(), dictionary.eos()}
        pieces = dictionary.string(tokens, escape_unk=reference, extra_symbols_to_ignore=specials)
        return self.text_encoder.decode(pieces)

    # -- data and decoding -----------------------------------------------------------------------------------

    def load_split(self, split: str, task_cfg: Any) -> None:
        self.require_dictionary()
        cfg, root = self.cfg, root_config(self.cfg)
        if root is not None and root.generation.lm_path:
            # Before fairseq loads the language model: its error for another dictionary is that sizes differ.
            check_stored_dictionary(Path(cfg.data), self.target_dictionary)
        self.adopt_features(task_cfg)
        clips, kept = self.read_split(split)
        labels = TextLabels(
            Path(cfg.label_dir or cfg.data) / f"{split}.{cfg.labels}", self.text_encoder, clips
        )
        self.datasets[split] = self.make_dataset(
            split,
            [clips[index] for index in kept],
            train=self.trains_on(split),
            labels=labels.select(kept),
        )

    def make_reader(self, split: str, train: bool) -> ClipReader:
        """With time masks in training; ValueError for a length below 0."""
        reader = super().make_reader(split, train)
        if not train:
            return reader
        cfg = self.cfg
        audio = TimeMask(cfg.time_mask_audio, cfg.time_mask_audio_stride) if cfg.time_mask_audio else None
        video = TimeMask(cfg.time_mask_video, cfg.time_mask_video_stride) if cfg.time_mask_video else None
        return replace(reader, audio_time_mask=audio, video_time_mask=video)

    def build_bpe(self, args: Any) -> Any:
        """The tokenizer joins pieces to words, unless ``--bpe`` asks for another."""
        if getattr(args, "_name", None):
            return super().build_bpe(args)
        return self.text_encoder

    def build_generator(
        self, models: Any, args: Any, seq_gen_cls: Any = None, extra_gen_cls_kwargs: Any = None, **kwargs: Any
    ) -> Any:
        """The search of :func:`~av_ssl.recognition.generation.choose_search`, or fairseq's own.

        The options of the command are written into the folder of its results. ``extra_gen_cls_kwargs`` has
        ``lm_model`` and ``lm_weight``, as fairseq-generate reads them.
        """
        extra = extra_gen_cls_kwargs or {}
        lm, lm_weight = extra.get("lm_model"), extra.get("lm_weight", 0.0)
        search = choose_search(models, self.target_dictionary, self.cfg, args, lm, lm_weight)
        if search is None:
            search = super().build_generator(models, args, seq_gen_cls, extra_gen_cls_kwargs, **kwargs)
        root = root_config(self.cfg)
        if root is not None:
            save_options(root, search)
        return search

    def get_batch_iterator(self, dataset: Any, *args: Any, **options: Any) -> Any:
        """fairseq's iterator; when decoded batches end, the error rates are reported."""
        epochs = super().get_batch_iterator(dataset, *args, **options)
        return epochs if dataset.train else WatchedEpochs(epochs, self)

    def fetch(self, batches: Iterator[dict[str, Any]]) -> dict[str, Any]:
        """The next batch; after the last one, print and write the error rates of ``fairseq-generate``."""
        try:
            return next(batches)
        except StopIteration:
            if self.errors.clips:
                root = root_config(self.cfg)
                subset, folder = root.dataset.gen_subset, root.common_eval.results_path
                print(f"{subset}: {self.errors}", flush=True)
                if folder:
                    self.errors.write(Path(folder) / f"clips-{subset}.tsv")
                self.errors = ErrorReport()
            raise

    def inference_step(self, generator: Any, models: Any, sample: Any, *args: Any, **options: Any) -> Any:
        """Decode a batch; in ``fairseq-generate``, its errors are counted."""
        found = super().inference_step(generator, models, sample, *args, **options)
        root = root_config(self.cfg)
        if root is not None and sample.get("target") is not None:
            named = root.common_eval.results_path is None and not root.common_eval.quiet
            for index, clip, target, hypotheses in zip(
                sample["id"].tolist(), sample["utt_id"], sample["target"], found, strict=True
            ):
                if named:  # beside fairseq's own lines, T-INDEX and so on
                    print(f"C-{index}\t{clip}")
                self.errors.add(clip, self.text(target, reference=True), self.text(hypotheses[0]["tokens"]))
        return found

    def state_dict(self) -> dict[str, Any]:
        return {**self.text_encoder.state_dict(), **self.teacher_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that a checkpoint was trained with this dictionary and tokenizer, or take its own."""
        self.check_teachers(state_dict)
        state = text_state(state_dict, "the checkpoint")
        if state is None:
            logger.warning(
                "the checkpoint holds no dictionary, so it cannot be compared with that of the data"
            )
        elif self.text_encoder.is_empty:
            self.text_encoder.adopt(state)
            logger.info("%s does not exist: the checkpoint's dictionary is used", self.dictionary_file)
        else:
            self.text_encoder.check_state(state)


def warn_if_always_frozen(updates: int, root: Any) -> None:
    """Warn that only the head is trained, where a run ends before the encoder is unfrozen."""
    if root is not None and 0 < root.optimization.max_update <= updates:
        logger.warning(
            "model.freeze_finetune_updates=%d, optimization.max_update=%d: the encoder stays frozen to the "
            "end; only the head is trained", updates, root.optimization.max_update,
        )  # fmt: skip
