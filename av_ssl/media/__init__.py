"""Files to arrays and back: reading and writing video and audio, face tracking, mouth crops.

Nothing here imports torch or fairseq, so preprocessing runs where neither is installed.
"""
