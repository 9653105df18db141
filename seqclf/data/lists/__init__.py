"""Lists of videos, in common formats.

==========  ==========================================  ===========================================================
form        a line                                      labels
==========  ==========================================  ===========================================================
lrcn        ``Walk/v_Walk_g01_c01 0``                   count from 0; the folder of the class may be missing on disk
ucf101      ``Walk/v_Walk_g01_c01.avi 1``               count from 1; without a number the class is the folder's name
rawframes   ``Walk/v_Walk_g01_c01 120 0``               count from 0, after the number of frames (mmaction2)
plain       ``some/video.mp4 0``                        count from 0, or names; without a label, the folder's name
csv         ``some/video.mp4,walk``                     names or numbers; a header, or JSON keys, name the columns
kinetics    ``label,youtube_id,time_start,time_end``    names; the header has these columns in any order
==========  ==========================================  ===========================================================

Columns are separated by spaces, tabs, commas or semicolons. Lines are split from the right, so paths may contain
spaces. Lines that begin with ``#`` are comments. HMDB51's files, one per class, are read as ``*_test_split1.txt``.

- ``video_list``: reads a list; ``lines``: lists without a header; ``table_rows``: tables and JSON
- ``splits``: the rows of a part; ``places``: where the videos are on disk
- ``classes``: labels as class indices; ``class_index``: files of class names
"""
