"""A recogniser process: pocketsphinx decoders behind stdin and stdout.

pocketsphinx holds Python's global lock while it decodes, so it lives outside the server's process.
Started by `sphinx.py` as `python -m bridge.local.whisper.sphinx_process DECODERS`; ends when stdin does.
"""

import os
import re
import sys
from typing import Any, BinaryIO

from bridge.local.whisper.bandwidth import wide
from bridge.local.whisper.engine import Recognition, Segment, Word
from bridge.local.whisper.wire import HEADER, Ask, Tell, encode_recognition, pack

FRAMES_PER_S = 100
"""pocketsphinx counts time in frames of 10 ms."""

TELEPHONE_MEAN = "38.85,21.15,-18.38,37.7,-17.12,10.04,2.78,-9.9,6.98,-8.99,8.3,0.24,1.4"
MICROPHONE_MEAN = "40,3,-1,0,0,0,0,0,0,0,0,0,0"
"""The mean cepstrum that an utterance starts from, in the notation of `-cmninit`; the second is pocketsphinx's own.

Telephone speech has nothing above 4 kHz, which shifts every coefficient and, before the running mean has
adapted, every word of a short utterance: over everyday sentences of flite's `rms` the word error rate
falls from about 0.4 (93 words) to 0.1 (621 words), while the same sentences at 16 kHz do better with pocketsphinx's mean
(0.03 to 0.17). The telephone's lies halfway between where pocketsphinx gets after one sentence and after 35,
averaged over four of flite's voices after 8 kHz mu-law.
"""

_ALTERNATIVE = re.compile(r"\(\d+\)$")
"""The dictionary marks other pronunciations: `to(3)`."""


def main() -> None:
    """Load the decoders, say so, and answer until stdin ends."""
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever a library prints must not get between the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # The event loop's short turns go before decoding when all cores are busy.
    os.nice(5)
    with answers:
        try:
            decoders = [_load() for _ in range(int(sys.argv[1]))]
        except Exception as error:  # noqa: BLE001 - whatever it is, the server must learn of it in one sentence
            _tell(answers, Tell.BROKEN, payload=str(error).encode())
            return
        _tell(answers, Tell.READY)
        _serve(decoders, asked, answers)


def _load() -> Any:
    import pocketsphinx  # noqa: PLC0415 - an optional extra

    pocketsphinx.set_loglevel("FATAL")
    # The second pass (fwdflat) would take 40 to 70 ms of each second of speech after its end.
    decoder = pocketsphinx.Decoder(loglevel="FATAL", fwdflat=False)
    # The first utterance of a decoder comes out a little different from all later ones.
    _begin(decoder)
    decoder.process_raw(bytes(3200), False, False)  # noqa: FBT003 - positional in pocketsphinx: no_search, full_utt
    decoder.end_utt()
    return decoder


def _begin(decoder: Any) -> None:
    """Begin an utterance that owes nothing to the one before: neither its noise nor its mean."""
    decoder.reinit_feat()
    decoder.set_cmn(TELEPHONE_MEAN)
    decoder.start_utt()


def _serve(free: list[Any], asked: BinaryIO, answers: BinaryIO) -> None:
    busy: dict[int, Any] = {}
    unheard: set[int] = set()
    while header := asked.read(HEADER.size):
        kind, utterance, length = HEADER.unpack(header)
        payload = asked.read(length)
        if kind == Ask.OPEN:
            busy[utterance] = free.pop()
        decoder = busy[utterance]
        if kind == Ask.OPEN:
            _begin(decoder)
            unheard.add(utterance)
        elif kind == Ask.AUDIO:
            if utterance in unheard:
                unheard.remove(utterance)
                if wide(payload):
                    decoder.set_cmn(MICROPHONE_MEAN)
            decoder.process_raw(payload, False, False)  # noqa: FBT003 - positional in pocketsphinx: no_search, full_utt
        elif kind == Ask.PARTIAL:
            _tell(answers, Tell.PARTIAL, utterance, encode_recognition(_read(decoder, final=False)))
        else:
            decoder.end_utt()
            free.append(busy.pop(utterance))
            unheard.discard(utterance)
            if kind == Ask.FINAL:
                _tell(answers, Tell.FINAL, utterance, encode_recognition(_read(decoder, final=True)))


def _read(decoder: Any, *, final: bool) -> Recognition:
    words = []
    for spoken in decoder.seg() if decoder.hyp() else ():
        if spoken.word[0] not in "<[+":  # <s>, <sil>, [NOISE], ++COUGH++
            text = _ALTERNATIVE.sub("", spoken.word)
            start_s, end_s = spoken.start_frame / FRAMES_PER_S, (spoken.end_frame + 1) / FRAMES_PER_S
            # Posteriors come from the word lattice, which exists only after the end.
            words.append(Word(text, start_s, end_s, min(1.0, round(spoken.prob, 4)) if final else None))
    if not words:
        return Recognition()
    text = " ".join(word.text for word in words)
    # No `log_prob`: Whisper's is a mean over tokens of text, which nothing here can be compared with.
    return Recognition((Segment(text, words[0].start_s, words[-1].end_s, words=tuple(words)),))


def _tell(answers: BinaryIO, kind: Tell, utterance: int = 0, payload: bytes = b"") -> None:
    answers.write(pack(kind, utterance, payload))
    answers.flush()


if __name__ == "__main__":
    main()
