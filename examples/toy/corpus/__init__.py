"""A corpus of talking faces made on the spot: two photographs, a speech synthesiser and moving lips.

`make_corpus.py` beside this package is the command. The modules, as a clip comes into being:

    grammar      the sentence
    voices       who speaks: a voice of espeak-ng, kept apart by split
    emotion      how voice and face change with it, where emotions are wanted
    speech       the sound, and when each word and phone is in it
    visemes      phones -> how the mouth stands in every frame
    photographs  the two photographs, aligned, with their landmarks
    warp         smooth displacement of a picture from a few moved points
    look         a photograph -> one speaker's face
    mouth        how the mouth stands -> where the lips are
    interior     teeth, tongue and the dark behind them
    motion       how the head moves
    camera       light and noise
    face         lips, head and light -> frames
    clip         one clip of all this
    files        a clip on disk
    generate     all clips, in several processes, resumable
"""
