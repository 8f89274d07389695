"""The ATLAS folder: nuclei, embeddings and what was found out about them, each all or nothing.

::

    nuclei.parquet    the table and its features f_*
    embedding.zarr    (N, D) float16, row by row with the table; context.zarr where there is one
    subtypes.parquet  map2d.parquet  transfer.parquet   layers: one row per nucleus, made later
    index/            the search index
    run.json          the manifest, written last

Every layer carries the fingerprint of the embedding it was made from, and a layer of an earlier
embedding is ignored, so that a folder never mixes two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.data.atlas import Atlas
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError
from nucleoscope.io import guard
from nucleoscope.io.guard import DEFAULT_LIMITS, Limits
from nucleoscope.io.omezarr import _array_metadata
from nucleoscope.io.raw import Request

MANIFEST = "run.json"
TABLE = "nuclei.parquet"
VECTORS = {"embedding": "embedding.zarr", "context": "context.zarr"}
LAYERS = ("subtypes", "map2d", "transfer")
_CHUNK_ROWS = 16384
_KEY = b"nucleoscope_embedding"


def write_atlas(
    folder: Path | str,
    atlas: Atlas,
    *,
    manifest: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write an atlas as an ATLAS folder; other things in the folder stay as they are.

    Parameters
    ----------
    folder
        Made when absent. It may already hold ``crops.zarr``.
    atlas
        Subtypes and 2D map are written too where it has them.
    manifest
        What ``run.json`` says besides ``atlas`` (numbers of nuclei and dimensions, fingerprint).
    overwrite
        Replace an atlas that is there. While that goes on the folder has no ``run.json`` and
        counts as unfinished.

    Raises
    ------
    CallError
        The folder holds an atlas already.
    ResourceError
        The disk is full.

    Examples
    --------
    >>> import tempfile
    >>> from nucleoscope.data.atlas import unit_rows
    >>> table = NucleusTable(pd.DataFrame({"id": [7], "y": [1.0], "x": [2.0]}))
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_atlas(folder, Atlas(table, unit_rows([[3.0, 4.0]])))
    >>> read_atlas(folder).table.frame["id"].tolist()
    [7]
    """
    folder = Path(folder)
    if (folder / MANIFEST).exists():
        if not overwrite:
            raise CallError(
                f"{folder}: it holds an atlas; choose another folder or pass overwrite=True."
            )
        (folder / MANIFEST).unlink()
    key = fingerprint(atlas.embedding)
    frame = atlas.table.frame
    if atlas.features is not None:
        frame = pd.concat([frame, atlas.features], axis=1)
    _write_parquet(folder / TABLE, frame, key, overwrite)
    for name, file in VECTORS.items():
        vectors = getattr(atlas, name)
        if vectors is not None:
            _write_vectors(folder / file, vectors, key, overwrite)
    for name in ("subtypes", "map2d"):
        layer = getattr(atlas, name)
        if layer is not None:
            _write_parquet(folder / f"{name}.parquet", layer, key, overwrite)
    facts = {"n_nuclei": len(atlas), "dimensions": atlas.embedding.shape[1], "embedding": key}
    guard.write_json(folder / MANIFEST, {**(manifest or {}), "atlas": facts}, overwrite=overwrite)


def read_atlas(folder: Path | str, *, limits: Limits = DEFAULT_LIMITS) -> Atlas:
    """Read an ATLAS folder with all its layers; ``type`` is the transferred one where there is one.

    Raises
    ------
    InputError
        No finished atlas there, or its parts do not belong together.
    UnsafeInputError
        Above a limit, or an unknown codec.
    """
    folder = Path(folder)
    key = embedding_key(folder, limits=limits)
    frame = _with_transfer(folder, _read_parquet(folder / TABLE, key, limits), key, limits)
    names = [c for c in frame.columns if str(c).startswith("f_")]
    embedding = _read_vectors(folder / VECTORS["embedding"], key, limits)
    if embedding is None:
        raise InputError(f"{folder}: table and embedding do not belong together; embed again.")
    try:
        return Atlas(
            NucleusTable(frame.drop(columns=names)),
            embedding,
            context=_read_vectors(folder / VECTORS["context"], key, limits),
            features=frame[names] if names else None,
            subtypes=read_layer(folder, "subtypes", limits=limits),
            map2d=read_layer(folder, "map2d", limits=limits),
        )
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None


def read_atlas_table(folder: Path | str, *, limits: Limits = DEFAULT_LIMITS) -> NucleusTable:
    """The nuclei of an ATLAS folder with subtypes, transferred types and features; no vectors.

    Raises
    ------
    InputError
        No finished atlas there.
    """
    folder = Path(folder)
    key = embedding_key(folder, limits=limits)
    frame = _with_transfer(folder, _read_parquet(folder / TABLE, key, limits), key, limits)
    subtypes = read_layer(folder, "subtypes", limits=limits)
    return NucleusTable(frame if subtypes is None else _side_by_side(frame, subtypes, folder))


def is_atlas(folder: Path | str) -> bool:
    """Whether a folder holds a finished atlas."""
    folder = Path(folder)
    needed = (MANIFEST, TABLE, VECTORS["embedding"])
    return all((folder / name).exists() for name in needed)


def write_layer(folder: Path | str, name: str, frame: pd.DataFrame) -> None:
    """Write one layer, a row per nucleus, over an earlier one of the same name.

    Parameters
    ----------
    folder
        An ATLAS folder.
    name
        ``"subtypes"``, ``"map2d"`` or ``"transfer"``.
    frame
        One row per nucleus, in the table's order.

    Raises
    ------
    CallError
        Another name.
    InputError
        No atlas there.
    """
    if name not in LAYERS:
        raise CallError(f"an atlas has the layers {', '.join(LAYERS)}; found {name!r}.")
    folder = Path(folder)
    _write_parquet(folder / f"{name}.parquet", frame, embedding_key(folder), overwrite=True)


def read_layer(
    folder: Path | str, name: str, *, limits: Limits = DEFAULT_LIMITS
) -> pd.DataFrame | None:
    """A layer, or None where there is none for the present embedding."""
    folder = Path(folder)
    path = folder / f"{name}.parquet"
    if not path.is_file():
        return None
    key = embedding_key(folder, limits=limits)
    with guard.reading(path):
        import pyarrow.parquet as pq

        found = (pq.read_schema(path).metadata or {}).get(_KEY, b"").decode("ascii", "replace")
    return _read_parquet(path, key, limits) if found == key else None


def fingerprint(embedding: NDArray[np.float16]) -> str:
    """A short hash of the vectors: layers and index carry it.

    >>> fingerprint(np.zeros((1, 2), np.float16))
    '20c4fd6d83ee8d3d'
    """
    digest = hashlib.sha256(repr(embedding.shape).encode())
    digest.update(np.ascontiguousarray(embedding, dtype="<f2").data)
    return digest.hexdigest()[:16]


def embedding_key(folder: Path | str, *, limits: Limits = DEFAULT_LIMITS) -> str:
    """The fingerprint of the embedding of a finished ATLAS folder, as ``run.json`` states it.

    Raises
    ------
    InputError
        No finished atlas there.
    """
    folder = Path(folder)
    if not is_atlas(folder):
        raise InputError(
            f"{folder}: it is not a finished atlas ({TABLE}, {VECTORS['embedding']} and "
            f"{MANIFEST}); run embed first."
        )
    manifest = guard.read_json(folder / MANIFEST, limits=limits)
    facts = manifest.get("atlas") if isinstance(manifest, dict) else None
    key = facts.get("embedding") if isinstance(facts, dict) else None
    if not isinstance(key, str):
        raise InputError(f"{folder / MANIFEST}: it is not the manifest of an atlas.")
    return key


# Parts ------------------------------------------------------------------------------------------


def _with_transfer(folder: Path, frame: pd.DataFrame, key: str, limits: Limits) -> pd.DataFrame:
    """The table with the columns of the transfer layer in place of its own."""
    layer = read_layer(folder, "transfer", limits=limits)
    return frame if layer is None else _side_by_side(frame, layer, folder)


def _side_by_side(frame: pd.DataFrame, layer: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Columns of a layer replace those of the same name."""
    if len(layer) != len(frame):
        raise InputError(f"{folder}: a layer has {len(layer)} rows for {len(frame)} nuclei.")
    kept = frame.drop(columns=list(layer.columns), errors="ignore")
    return pd.concat([kept, layer], axis=1)


def _write_parquet(path: Path, frame: pd.DataFrame, key: str, overwrite: bool) -> None:
    """A frame as Parquet that carries the fingerprint."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.Table.from_pandas(frame, preserve_index=False)
    for at, column in enumerate(schema.schema):  # an empty column of text has no type of its own
        if pa.types.is_null(column.type):
            schema = schema.set_column(at, column.name, schema.column(at).cast(pa.string()))
    schema = schema.replace_schema_metadata({_KEY: key.encode("ascii")})
    with guard.atomic_write(path, overwrite=overwrite) as temp:
        pq.write_table(schema, temp, compression="zstd")


def _read_parquet(path: Path, key: str, limits: Limits) -> pd.DataFrame:
    """A Parquet file that must carry the fingerprint."""
    with guard.reading(path):
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        limits.check("rows", file.metadata.num_rows, str(path))
        if (file.schema_arrow.metadata or {}).get(_KEY, b"") != key.encode("ascii", "replace"):
            raise InputError(f"{path}: it belongs to another embedding; write the atlas again.")
        frame: pd.DataFrame = file.read().to_pandas(ignore_metadata=True)
    return frame


def _write_vectors(path: Path, vectors: NDArray[np.float16], key: str, overwrite: bool) -> None:
    """An array of rows as Zarr 3, some rows per chunk, every chunk stored."""
    import zarr
    from zarr.codecs import BloscCodec

    rows = max(min(_CHUNK_ROWS, len(vectors)), 1)
    with guard.atomic_folder(path, overwrite=overwrite) as temp:
        array = zarr.create_array(
            temp, shape=vectors.shape, dtype=np.float16, chunks=(rows, vectors.shape[1]),
            compressors=BloscCodec(cname="zstd", clevel=1), fill_value=0, zarr_format=3,
            config={"write_empty_chunks": True}, attributes={_KEY.decode(): key},
            dimension_names=["nucleus", "dimension"], overwrite=True,
        )  # fmt: skip
        array[...] = vectors


def _read_vectors(path: Path, key: str, limits: Limits) -> NDArray[np.float16] | None:
    """Rows written by ``_write_vectors``, or None where there are none of this embedding."""
    if not (path / "zarr.json").is_file():
        return None
    with guard.reading(path):
        head = guard.read_json(path / "zarr.json", limits=limits)
        if head["attributes"].get(_KEY.decode()) != key:
            return None
        if head["shape"][0] == 0:
            return np.zeros((0, int(head["shape"][1])), np.float16)
        meta = _array_metadata(path, Request(limits=limits))
        if len(meta["shape"]) != 2 or meta["dtype"] != "float16":
            raise InputError(f"{path}: {meta['dtype']} of shape {meta['shape']} is no embedding.")
        import zarr

        vectors: NDArray[np.float16] = np.asarray(zarr.open_array(path, mode="r")[...])
    return vectors
