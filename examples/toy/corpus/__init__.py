"""A corpus of talking faces made here: two photographs, a speech synthesiser and moving lips.

`make_corpus.py` in the folder above is the command. The modules, in the order in which a clip is made:

    script     what is said, by whom and with which emotion
    speech     the audio, and when each word and phone is in it
    visemes    phones -> the shape of the mouth in every frame
    warp       smooth displacement of an image from a few moved points
    look       a photograph -> one speaker's face
    mouth      the shape of the mouth -> where the lips are, and what is visible between them
    camera     motion of the head, light and noise
    face       all of this -> frames
    clip       one clip, and its files
"""
