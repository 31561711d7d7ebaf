"""Tables of ingested data: images, originals (their encoded files), rejects and shards (parts of sources)."""

import pyarrow as pa

from schemas.table import DATASET, FILE_SIZE, IMAGE_ID, LABEL, PATH, SHARD, SPLIT, Table, column

IMAGES = Table(
    name="images",
    doc="one row per decoded image",
    partition_by=("dataset", "split", "shard"),
    schema=pa.schema(
        [
            IMAGE_ID,
            PATH,
            LABEL,
            column("height", pa.int32(), "rows of pixels", unit="pixels"),
            column("width", pa.int32(), "columns of pixels", unit="pixels"),
            column("channels", pa.int16(), "1 for grayscale, 3 for RGB", unit="channels"),
            column(
                "pixels",
                pa.binary(),
                "pixel values in canonical form: row by row, channels last",
                unit="height * width * channels bytes of uint8, 0 to 255",
            ),
            column(
                "content_hash",
                pa.binary(),
                "identifies the content of the image: xxh3-128 of (height, width, channels, pixels)",
                unit="16 bytes",
            ),
            column(
                "file_digest",
                pa.binary(),
                "identifies the file: SHA-256 of its encoded bytes. If the source holds pixels, not files, SHA-256 of "
                "height, width, channels (uint32, little-endian) and the pixels in the layout of `pixels`, as numbers "
                "from 0 to 255 of any type, before they are converted or resized. Null in rows of imagelake 0.5 or "
                "earlier until their shard is read again",
                unit="32 bytes",
                null=True,
            ),
            column("pixel_sum", pa.int64(), "sum of all pixel values", unit="0 to 255 a value"),
            column("pixel_squares", pa.int64(), "sum of all squared pixel values", unit="0 to 65,025 a value"),
            FILE_SIZE,
            DATASET,
            SPLIT,
            SHARD,
        ]
    ),
)

# The format of originals of a source that holds pixels, not files.
PIXELS = "PIXELS"

ORIGINALS = Table(
    name="originals",
    doc='one row per image whose encoded file is kept or referenced; none in lakes with originals = "none"',
    partition_by=("dataset", "split", "shard"),
    schema=pa.schema(
        [
            IMAGE_ID,
            column("file_digest", pa.binary(), "SHA-256 of `bytes`, the same as images.file_digest", unit="32 bytes"),
            column(
                "format",
                pa.string(),
                "format of the file: JPEG, PNG, WEBP, ...; PIXELS if the source holds pixels that the lake converts or "
                "resizes",
            ),
            column("height", pa.int32(), "rows of pixels of the file, before the EXIF orientation", unit="pixels"),
            column("width", pa.int32(), "columns of pixels of the file, before the EXIF orientation", unit="pixels"),
            column(
                "taken_at",
                pa.string(),
                "when the picture was taken, from its EXIF data, as ISO 8601: 2024-07-01T09:30:00 in the camera's "
                "local time, with an offset such as +02:00 if the file has one; null if unknown",
                null=True,
            ),
            column("camera", pa.string(), "make and model of the camera, from the EXIF data", null=True),
            column(
                "bytes",
                pa.binary(),
                "the encoded file as it came, byte by byte. If the format is PIXELS: height, width, channels (uint32, "
                'little-endian) and the pixels. Null in lakes with originals = "reference"',
                null=True,
            ),
            column(
                "location",
                pa.string(),
                "where the file is: a path, or SOURCE#PATH for a file of an archive or another source. Null in lakes "
                'with originals = "keep"',
                null=True,
            ),
            DATASET,
            SPLIT,
            SHARD,
        ]
    ),
)

REJECTS = Table(
    name="rejects",
    doc="one row per file that could not be decoded to an image",
    partition_by=("dataset", "split"),
    schema=pa.schema(
        [
            PATH,
            LABEL,
            column("reason", pa.string(), "reason code: empty, truncated, not_an_image, wrong_size, ..."),
            column("detail", pa.string(), "description of the fault, as text for people"),
            FILE_SIZE,
            SHARD,
            DATASET,
            SPLIT,
        ]
    ),
)

SHARDS = Table(
    name="shards",
    doc="one row per shard, the part of a source that is decoded and replaced as a unit",
    schema=pa.schema(
        [
            DATASET,
            SPLIT,
            SHARD,
            column(
                "uri",
                pa.string(),
                "location of the source as in the recipe, without user name, password and query",
            ),
            column(
                "fingerprint", pa.string(), "digest of the names, sizes and modification times of the shard's files"
            ),
            column("rows", pa.int64(), "number of decoded images", unit="images"),
            column("rejects", pa.int64(), "number of files that could not be decoded", unit="files"),
            column("decoder", pa.string(), "name of the decoder and its settings"),
        ]
    ),
)
