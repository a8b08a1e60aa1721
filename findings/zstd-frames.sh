#!/usr/bin/env bash
# zstandard 0.25.0 (PyPI): methods of one class disagree on a stream of two frames.
#
# A zstd stream is any number of frames one after the other (RFC 8878); its content is that of all of them. Image layers
# in the zstd:chunked form are such streams, with a frame for each file or part of one.
# Expected: every way to decompress gives all of the content, or raises.
# Seen: decompress() and read_to_iter() end after the first frame, without an error and without telling what is left;
#   stream_reader(), stream_writer() and copy_stream() go on to the end.
# For a lab: a layer read by decompress() or read_to_iter() is a shorter layer; only its digest shows it.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
python_packages zstandard==0.25.0

"$python" - >"$work/seen" <<'EOF'
import io

import zstandard

frame = zstandard.ZstdCompressor().compress
stream = frame(b"first file, ") + frame(b"second file")
new = zstandard.ZstdDecompressor


def written(through):
    target = io.BytesIO()
    through(target)
    return target.getvalue()


print("decompress   ", new().decompress(stream))
print("read_to_iter ", b"".join(new().read_to_iter(io.BytesIO(stream))))
print("stream_reader", new().stream_reader(io.BytesIO(stream)).read())
print("stream_writer", written(lambda target: new().stream_writer(target).write(stream)))
print("copy_stream  ", written(lambda target: new().copy_stream(io.BytesIO(stream), target)))
EOF

as_recorded <<'EOF'
decompress    b'first file, '
read_to_iter  b'first file, '
stream_reader b'first file, second file'
stream_writer b'first file, second file'
copy_stream   b'first file, second file'
EOF
