"""Reading and writing video files: one interface over decord and PyAV.

PyAV reads and writes everywhere and is the judge of what a file holds; decord, where it installs, decodes the
files on which the two agree to the bit. Frame i is the i-th in presentation order, whatever its time stamp
(a variable frame rate is ignored), and is never rotated, whatever the file's display matrix says.

Files may come from strangers. The first bytes must be those of an mp4 or mov, a matroska or webm, or an avi,
so that no playlist under another name is ever followed; PyAV is told the container and may open local files
only, and both leave an mp4's external data references closed (FFmpeg's default).
"""

import bisect
import collections
import functools
import operator
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Int, UInt8

BACKENDS = ("auto", "decord", "pyav")
HANDLES = 8  # open files a thread keeps: each of decord's holds a thread and some megabytes


class BadVideo(ValueError):
    """A file that cannot be read as video; one sentence that names it and what is wrong."""


class VideoInfo(NamedTuple):
    """`frames` that can be read, `height` and `width` in pixels, mean `fps`, FFmpeg's name of the `codec`."""

    frames: int
    height: int
    width: int
    fps: float
    codec: str


class VideoReader(Protocol):
    """An open file. It belongs to the thread and the process that opened it."""

    info: VideoInfo

    @property
    def backend(self) -> str:
        """Who decodes it: decord or pyav."""
        ...

    def read(self, indices: Sequence[int] | Int[np.ndarray, "n"]) -> UInt8[np.ndarray, "n H W 3"]:
        """RGB frames in the order asked for, repeats allowed.

        ValueError where there is no such frame, BadVideo where it can't be decoded.
        """
        ...

    def close(self) -> None:
        """Let go of the file; reading from it afterwards is an error."""
        ...


# What the file says of itself, before a decoder sees it.

_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_MAX_BOXES = 100_000  # a hostile file could hold one in every eight bytes


def _container(path: Path) -> str:
    """FFmpeg's name of the container, by the first bytes; BadVideo where it is none of ours, or cut short."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(64)
            if not head:
                raise BadVideo(f"{path} is empty (0 bytes)")
            if head[4:8] in _MOV_BOXES:
                name, end = "mov", _end_of_boxes(file, size)
            elif head[:4] == b"\x1aE\xdf\xa3":
                name, end = "matroska", _end_of_segment(head)
            elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
                name, end = "avi", _end_of_riffs(file, size)
            else:
                raise BadVideo(f"{path} is not a video: it begins as no mp4, mov, mkv, webm or avi file does")
    except OSError as error:
        raise BadVideo(f"{path} cannot be opened: {error.strerror}") from error
    if end > size:
        raise BadVideo(f"{path} is truncated: it has {size} of the {end} bytes it declares")
    return name


def _end_of_boxes(file: Any, size: int) -> int:
    """Where the last top-level box of ISO/IEC 14496-12 says that it ends."""
    at = 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        if (
            len(head) < 8 or length < 8
        ):  # the end; or a box that runs to the end; or what only a demuxer can judge
            break
        at += length
        if at >= size:
            break
    return at


def _end_of_riffs(file: Any, size: int) -> int:
    """Where the last RIFF chunk says that it ends; long avi files have several."""
    at = 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):  # never finalised: says nothing
            break
        at += 8 + length
        if at >= size:
            break
        at += length % 2
    return at


def _end_of_segment(head: bytes) -> int:
    """Where the matroska segment says that it ends; 0 where it doesn't (a live recording)."""

    def number(at: int) -> tuple[int | None, int]:  # EBML's variable-length integer (RFC 8794, section 4)
        width = 9 - head[at].bit_length() if at < len(head) else 9
        if width > 8 or at + width > len(head):
            return None, at
        value = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
        return (None if value == (1 << 7 * width) - 1 else value), at + width

    length, at = number(4)
    if length is None or head[at + length : at + length + 4] != b"\x18\x53\x80\x67":
        return 0
    length, at = number(at + length + 4)
    return 0 if length is None else at + length


# What is really there, by PyAV.


class _Index(NamedTuple):
    info: VideoInfo
    container: str
    times: list[int] | None  # presentation times, sorted; None where they're missing or repeat: count instead
    keys: list[tuple[int, int]]  # (presentation, decoding) time of key frames, sorted
    unfit: str | None  # why decord would give other pixels than PyAV, or none


def _open(path: Path, container: str) -> tuple[Any, Any]:
    """The PyAV container and its video stream, decoding in the caller's thread."""
    import av
    from av.error import FFmpegError
    from av.stream import Disposition

    try:
        # An absolute path, so that none can be taken for a protocol.
        opened = av.open(
            os.path.abspath(path), format=container, container_options={"protocol_whitelist": "file"}
        )
    except (FFmpegError, OSError) as error:
        raise BadVideo(f"{path} cannot be opened, corrupt or truncated: {_words(error)}") from error
    stream: Any = opened.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        opened.close()
        raise BadVideo(f"{path} has no video stream")
    stream.codec_context.thread_count = 1
    stream.thread_type = "NONE"
    # Damage is an error, not something to paint over.
    stream.codec_context.options = {"err_detect": "crccheck+explode"}
    return opened, stream


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).strip().split("\n")[0]


def _index(path: Path) -> _Index:
    """Walk through a file's packets and hold what it declares against them; decode the first frame only."""
    from av.error import FFmpegError

    container = _container(path)
    opened, stream = _open(path, container)
    with opened:
        try:
            return _walk(path, container, opened, stream)
        except (FFmpegError, OSError) as error:
            raise BadVideo(f"{path} is corrupt: {_words(error)}") from error


def _walk(path: Path, container: str, opened: Any, stream: Any) -> _Index:
    codec = stream.codec_context.codec.canonical_name
    packets, times, keys, end = 0, [], [], Fraction(0)
    for packet in opened.demux():
        if not packet.size:  # a stream's end
            continue
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None:
            end = max(end, (time + (packet.duration or 0)) * packet.time_base)
        if packet.stream_index != stream.index:
            continue
        packets += 1
        if packet.is_corrupt:
            raise BadVideo(f"{path} is corrupt or truncated at its packet {packets - 1}")
        # Outside an edit list; or VP8's frame that is never shown (RFC 6386, section 9.1).
        if packet.is_discard or (codec == "vp8" and not bytes(packet)[0] & 0x10):
            continue
        times.append(packet.pts)
        if packet.is_keyframe:
            keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
    if not times:
        raise BadVideo(f"{path} has no frames")
    if stream.frames > packets:
        raise BadVideo(f"{path} is truncated: {packets} frames are there of the {stream.frames} it declares")
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    if opened.duration is not None:  # in microseconds
        # The longest of all streams sets the duration. Half a second of grace: some writers round, or count
        # from the first decoding time.
        declared = Fraction(opened.duration, 1_000_000) + max(Fraction(opened.start_time or 0, 1_000_000), 0)
        if end + Fraction(1, 2) + (Fraction(2 / fps) if fps else 0) < declared:
            raise BadVideo(
                f"{path} is truncated: it ends after {float(end):.2f} s of {float(declared):.2f} s"
            )

    opened.seek(0)
    first = next(opened.decode(stream), None)
    if first is None:
        raise BadVideo(f"{path} is corrupt: none of its frames can be decoded")
    unfit = _unfit_for_decord(first)
    if None in times or len(set(times)) < len(times):
        opened.seek(0)
        # avi with B-frames, mostly: only decoding tells how many pictures there are, and their order
        count, times, unfit = sum(1 for _ in opened.decode(stream)), None, "it has no presentation times"
    else:
        count = len(times)
        times.sort()
    return _Index(
        VideoInfo(count, first.height, first.width, fps, codec),
        container,
        times,
        sorted(keys) if times else [],
        unfit,
    )


def _unfit_for_decord(frame: Any) -> str | None:
    """Where decord's older converter was measured to differ from PyAV's."""
    layout = frame.format
    if frame.rotation:
        return "it is rotated"
    if any(part.bits > 8 for part in layout.components):
        return "it has more than 8 bits a channel"
    if (layout.chroma_width(2) < 2 and frame.width % 2) or (layout.chroma_height(2) < 2 and frame.height % 2):
        return "its size is odd and its chroma subsampled"
    return None


# The two readers.


def _gather(
    path: Path, info: VideoInfo, indices: Any, decode: Callable[[list[int]], np.ndarray]
) -> UInt8[np.ndarray, "n H W 3"]:
    """Decode each frame once, going forwards only, and hand them out in the order asked for."""
    wanted = np.asarray(indices)
    if not wanted.size:
        return np.empty((0, info.height, info.width, 3), np.uint8)
    if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
        raise ValueError(
            f"indices of shape {wanted.shape} and type {wanted.dtype} must be a flat list of integers"
        )
    if wanted.min() < 0 or wanted.max() >= info.frames:
        beyond = int(wanted.min() if wanted.min() < 0 else wanted.max())
        raise ValueError(f"frame {beyond} is not in {path}; use 0 to {info.frames - 1}")
    once, back = np.unique(wanted, return_inverse=True)
    frames = decode(once.tolist())
    return frames if len(once) == len(wanted) and (np.diff(back) > 0).all() else frames[back]


class _PyAVReader:
    backend = "pyav"

    def __init__(self, path: Path, index: _Index) -> None:
        from av.video.reformatter import VideoReformatter

        self.info, self._path, self._index = index.info, path, index
        self._order = {time: i for i, time in enumerate(index.times or ())}
        self._convert = VideoReformatter()  # one for all frames: setting one up costs twice what it does
        self._container: Any = None
        self._restart()

    def _restart(self) -> None:
        self.close()
        self._container, self._stream = _open(self._path, self._index.container)
        self._forwards()

    def _forwards(self) -> None:
        self._frames: Iterator[Any] = self._container.decode(self._stream)
        self._at = -1  # the frame that was decoded last

    def read(self, indices: Sequence[int] | Int[np.ndarray, "n"]) -> UInt8[np.ndarray, "n H W 3"]:
        return _gather(self._path, self.info, indices, self._decode)

    def _decode(self, wanted: list[int]) -> np.ndarray:
        if self._container is None:
            raise ValueError(f"{self._path} was closed; open it again")
        out = np.empty((len(wanted), self.info.height, self.info.width, 3), np.uint8)
        for row, i in enumerate(wanted):
            frame = self._find(i)
            if (frame.height, frame.width) != out.shape[1:3]:
                raise BadVideo(f"{self._path} changes its size at frame {i}")
            out[row] = self._convert.reformat(frame, format="rgb24").to_ndarray()
        return out

    def _find(self, i: int) -> Any:
        """Frame i: forwards where no key frame is nearer, else from its key frame, else from the start."""
        key = None
        if self._index.times is not None:
            times = self._index.times
            before = bisect.bisect(self._index.keys, times[i], key=operator.itemgetter(0)) - 1
            key = self._index.keys[before] if before >= 0 else None
        nearer = key is not None and self._order[key[0]] > self._at + 1
        if i > self._at and not nearer and (frame := self._advance(i)) is not None:
            return frame
        # mp4 seeks among decoding times, matroska among presentation times.
        for time in dict.fromkeys(key or ()):
            if self._seek(time) and (frame := self._advance(i)) is not None:
                return frame
        self._restart()
        if (frame := self._advance(i)) is not None:
            return frame
        self._restart()
        raise BadVideo(f"{self._path} is corrupt: frame {i} of {self.info.frames} cannot be decoded")

    def _seek(self, time: int) -> bool:
        from av.error import FFmpegError

        try:
            self._container.seek(time, stream=self._stream)
        except (FFmpegError, OSError):
            return False
        self._forwards()
        return True

    def _advance(self, i: int) -> Any | None:
        """Decode up to frame i; None where it doesn't come."""
        from av.error import FFmpegError

        try:
            for frame in self._frames:
                # Counting where there are no times. After a seek, pictures of before the edit may come first.
                self._at = self._at + 1 if self._index.times is None else self._order.get(frame.pts, self._at)
                if self._at >= i:
                    return frame if self._at == i and not frame.is_corrupt else None
        except (FFmpegError, OSError):
            pass
        return None

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None


@functools.cache
def _decord() -> Any | None:
    """A decord reader class that is safe to drop after a fork; None where decord can't be imported."""
    try:
        import decord
    except Exception:  # not installed, or a library of its own is missing: each raises as it likes
        return None
    decord.logging.set_level(decord.logging.QUIET)

    class Handle(decord.VideoReader):
        def __init__(self, path: str) -> None:
            self._process = os.getpid()
            # Any frame that decord would replace by a neighbour is an error (its tolerance is a fraction).
            tolerance: Any = 1e-9
            super().__init__(path, ctx=decord.cpu(0), num_threads=1, fault_tol=tolerance)

        def __del__(self) -> None:
            # A forked child doesn't have the thread that freeing would wait for.
            if self._process == os.getpid():
                super().__del__()

    return Handle


class _DecordReader:
    backend = "decord"

    def __init__(self, path: Path, index: _Index) -> None:
        handle = _decord()
        assert handle is not None
        self.info, self._path = index.info, path
        try:
            self._handle: Any = handle(os.path.abspath(path))
        except Exception as error:  # decord raises RuntimeError, AssertionError and its own
            raise BadVideo(f"{path} cannot be opened by decord: {_words(error)}") from error
        if len(self._handle) != self.info.frames:
            raise BadVideo(
                f"{path} has {self.info.frames} frames, of which decord counts {len(self._handle)}"
            )

    def read(self, indices: Sequence[int] | Int[np.ndarray, "n"]) -> UInt8[np.ndarray, "n H W 3"]:
        return _gather(self._path, self.info, indices, self._decode)

    def _decode(self, wanted: list[int]) -> np.ndarray:
        if self._handle is None:
            raise ValueError(f"{self._path} was closed; open it again")
        try:
            frames = self._handle.get_batch(wanted).asnumpy()
        except Exception as error:
            raise BadVideo(f"{self._path} is corrupt: decord cannot decode frames of it") from error
        if frames.shape != (len(wanted), self.info.height, self.info.width, 3):
            raise BadVideo(f"{self._path} is corrupt: decord gives frames of shape {frames.shape[1:]}")
        return frames

    def close(self) -> None:
        self._handle = None


class _AutoReader:
    """decord's frames; from the first that it can't decode on, PyAV's: frames of 16 x 16 are such a case."""

    def __init__(self, path: Path, index: _Index) -> None:
        self.info, self._path, self._index = index.info, path, index
        self._reader: VideoReader
        try:
            if index.unfit is not None or _decord() is None:
                raise BadVideo
            self._reader = _DecordReader(path, index)
        except BadVideo:
            self._reader = _PyAVReader(path, index)

    @property
    def backend(self) -> str:
        return self._reader.backend

    def read(self, indices: Sequence[int] | Int[np.ndarray, "n"]) -> UInt8[np.ndarray, "n H W 3"]:
        try:
            return self._reader.read(indices)
        except BadVideo:
            if self.backend == "pyav":
                raise
            self._reader.close()
            self._reader = _PyAVReader(self._path, self._index)
            return self._reader.read(indices)

    def close(self) -> None:
        self._reader.close()


def open_video(path: str | os.PathLike[str], backend: str = "auto") -> VideoReader:
    """Open a file for reading at random.

    `auto` takes decord where it is installed and gives PyAV's frames to the bit, else PyAV: for AV1, rotated,
    10-bit and odd 4:2:0 video, edited mp4. Naming a backend insists on it. Opening reads all packets once.

    Raises BadVideo (empty, not a video, truncated, corrupt, without a video stream, not for this backend);
    ValueError for a backend that is unknown or not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} must be one of {', '.join(BACKENDS)}")
    if backend == "decord" and _decord() is None:
        raise ValueError("backend='decord' is not installed here; use backend='pyav'")
    path = Path(path)
    index = _index(path)
    if backend == "auto":
        return _AutoReader(path, index)
    if backend == "pyav":
        return _PyAVReader(path, index)
    if index.unfit is not None:
        raise BadVideo(f"{path} is not for decord, because {index.unfit}; use backend='pyav'")
    return _DecordReader(path, index)


def probe(path: str | os.PathLike[str], backend: str = "auto") -> VideoInfo:
    """What a file holds, after a cheap check: every packet is counted, the first and last frame are decoded.

    Raises what `open_video` does. Damage in between that leaves all packets in place shows when it is read. A
    live recording (matroska without sizes) that was cut short can't be told from a shorter one.
    """
    reader = open_video(path, backend)
    try:
        reader.read([0, reader.info.frames - 1])
    finally:
        reader.close()
    return reader.info


# Open handles, for whoever reads many short clips.


class _Handles(threading.local):
    """Of one thread: a reader shared between threads deadlocks."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.open: collections.OrderedDict[tuple[str, str], tuple[tuple[int, int], VideoReader]]
        self.open = collections.OrderedDict()


_handles = _Handles()


def _reader(path: str, backend: str) -> VideoReader:
    if _handles.process != os.getpid():
        # A parent's readers hang in a forked child, and share its place in the file: forget them unclosed.
        _handles.process, _handles.open = os.getpid(), collections.OrderedDict()
    try:
        stat = os.stat(path)
    except OSError as error:
        raise BadVideo(f"{path} cannot be opened: {error.strerror}") from error
    key, stamp = (path, backend), (stat.st_mtime_ns, stat.st_size)
    if key in _handles.open and _handles.open[key][0] != stamp:
        _handles.open.pop(key)[1].close()
    if key not in _handles.open:
        while len(_handles.open) >= HANDLES:
            _handles.open.popitem(last=False)[1][1].close()
        _handles.open[key] = stamp, open_video(path, backend)
    _handles.open.move_to_end(key)
    return _handles.open[key][1]


def read_frames(
    path: str | os.PathLike[str], indices: Sequence[int] | Int[np.ndarray, "n"], backend: str = "auto"
) -> UInt8[np.ndarray, "n H W 3"]:
    """Frames by number, in any order, repeats allowed; each is decoded once.

    Keeps the last few files open, for each thread apart; opens them afresh when they change and after a fork.
    Raises what `open_video` does, BadVideo where a frame can't be decoded, ValueError where there is none.
    """
    path = os.path.abspath(path)
    reader = _reader(path, backend)
    try:
        return reader.read(indices)
    except BadVideo:  # a decoder that has failed is not to be trusted again
        _handles.open.pop((path, backend))[1].close()
        raise


def close_readers() -> None:
    """Close the files that `read_frames` keeps open for this thread."""
    mine = _handles.process == os.getpid()
    while _handles.open:
        reader = _handles.open.popitem()[1][1]
        if mine:
            reader.close()


# Writing.

_MUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"}
_LOSSLESS = {  # pixels and options that give back every RGB value
    "libx264rgb": ("rgb24", {"qp": "0"}),
    "ffv1": ("bgr0", {}),
    "libvpx-vp9": ("gbrp", {"lossless": "1"}),
}
_LOSSY = {"libx264rgb": ("rgb24", {"crf": "18"}), "libx264": ("yuv420p", {"crf": "18"})}


def write_video(
    path: str | os.PathLike[str],
    frames: UInt8[np.ndarray, "T H W C"],
    fps: float = 25,
    codec: str = "libx264rgb",
    lossless: bool = True,
) -> None:
    """Write frames, C = 1 (as grey) or 3 (RGB), to an mp4, mov, mkv, webm or avi file by its suffix.

    Lossless codecs keep any size and every value: `libx264rgb` (mp4, mov, mkv, avi), `ffv1` (mkv, avi),
    `libvpx-vp9` (webm, mkv, mp4). With `lossless=False` any encoder of FFmpeg's that takes yuv420p, whose
    sides must be even. The file appears under its name only when it is whole. Raises ValueError.
    """
    import av
    from av.codec.codec import UnknownCodecError
    from av.error import FFmpegError

    path, frames = Path(path), np.asarray(frames)
    if frames.ndim != 4 or frames.dtype != np.uint8 or frames.shape[3] not in (1, 3) or not frames.size:
        raise ValueError(
            f"frames {frames.dtype}{list(frames.shape)} must be uint8 [T, H, W, 1 or 3] and not empty"
        )
    if path.suffix.lower() not in _MUXERS:
        raise ValueError(f"{path} has suffix {path.suffix!r}; use one of {', '.join(_MUXERS)}")
    if not 0 < fps < float("inf"):
        raise ValueError(f"fps={fps} must be a positive number of frames a second")
    if lossless and codec not in _LOSSLESS:
        raise ValueError(
            f"codec={codec!r} is not lossless; use one of {', '.join(_LOSSLESS)}, or lossless=False"
        )
    pixels, options = _LOSSLESS[codec] if lossless else _LOSSY.get(codec, ("yuv420p", {}))
    if pixels == "yuv420p" and (frames.shape[1] % 2 or frames.shape[2] % 2):
        raise ValueError(
            f"size {frames.shape[1]}x{frames.shape[2]} is odd; use lossless=True or an even size"
        )

    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with av.open(str(part.absolute()), "w", format=_MUXERS[path.suffix.lower()]) as container:
            stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(60_000))
            stream.height, stream.width, stream.pix_fmt, stream.options = *frames.shape[1:3], pixels, options
            for frame in np.broadcast_to(frames, (*frames.shape[:3], 3)):
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        os.replace(part, path)
    except OSError:
        raise
    except (FFmpegError, UnknownCodecError) as error:
        raise ValueError(f"{path} cannot be written with codec={codec!r}: {_words(error)}") from error
    finally:
        part.unlink(missing_ok=True)
