"""The usual names of columns, and the headers of well-known tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

Columns = Mapping[str, str | int | Sequence[str] | None]
"""The purpose of a column -> its name in the header, or its number from 0 in a file without a header. The purpose
"labels" takes the names of several columns, one per class. None ignores a column with a usual name, such as "group"."""

PURPOSES = ("path", "video", "label", "labels", "class_name", "split", "group", "start", "end", "frame")
"""The purposes of columns; "path" and "video" are the same."""

PATH = (
    *("path", "videopath", "clippath", "filepath", "file", "filename", "video", "videofile", "videoname", "clip"),
    *("clipname", "mediafilename", "mediafile", "name", "youtubeid", "videoid", "id"),
)
LABEL = (
    *("template", "label", "labels", "class", "category", "action", "tag", "tags", "activity", "behavior", "behaviour"),
    *("gesture", "verb", "phase", "target", "classid", "labelid", "classname", "labelname", "categoryname"),
    *("actionname", "actions", "annotation", "timelinelabels", "choice", "choices"),
)
LABEL_NAME = ("labelname", "classname", "categoryname", "actionname")
SPLIT = ("split", "subset", "fold", "partition", "usage")
GROUP = (
    *("group", "groupid", "subject", "subjectid", "participant", "participantid", "person", "personid", "actor"),
    *("patient", "patientid", "user", "userid", "recording", "recordingid", "session", "sessionid"),
)
START = ("start", "begin", "from", "onset")
END = ("end", "stop", "to", "offset")
START_FRAME, END_FRAME = ("startframe", "framestart", "beginframe"), ("endframe", "frameend", "stopframe")
START_SECONDS = (
    *("starts", "startsec", "startseconds", "starttime", "timestart", "starttimestamp", "tstart", "begintime"),
    *("begins", "beginsec", "beginseconds", "begintimessmsec", "begintimehhmmssms", "segment"),
)
END_SECONDS = (
    *("ends", "endsec", "endseconds", "endtime", "timeend", "endtimestamp", "tend", "stops", "stopsec", "stopseconds"),
    *("stoptime", "stoptimestamp", "endtimessmsec", "endtimehhmmssms", "segment"),
)
FRAME = ("frame", "frameid", "framenumber", "frameindex")
ENDS = {*END, *END_FRAME, *END_SECONDS}
TIMES = {*START, *START_FRAME, *START_SECONDS, *ENDS, *FRAME}
"""All usual names of times and frame numbers."""

_KNOWN = {
    "Kinetics": {"label", "youtubeid"},
    "EPIC-KITCHENS": {"narrationid", "videoid", "verb", "startframe", "stopframe"},
    "BORIS": {"behavior", "starts", "stops"},
    "Charades": {"id", "actions"},
    "Something-Something": {"id", "label", "template"},
    "Jester": {"videoid", "label", "labelid", "frames"},
    "Cholec80": {"frame", "phase"},
    "ActivityNet": {"path", "subset", "segment", "label"},
    "Label Studio": {"annotator", "annotationid"},
}


def normal(name: str) -> str:
    """Normalises a column name to lower-case letters and digits: "Start (s)" becomes "starts"."""
    return re.sub(r"[\W_]", "", name.lower())


def known_header(names: Iterable[str]) -> str:
    """The well-known table that has these normalised column names, or ""."""
    found = set(names)
    return next((table for table, needed in _KNOWN.items() if needed <= found), "")
