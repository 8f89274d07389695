from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nucleoscope.data.atlas import Atlas, unit_rows
from nucleoscope.data.crops import CropStore
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError
from nucleoscope.io.atlas import write_atlas
from nucleoscope.io.crops import write_crops
from nucleoscope.io.tables import write_csv
from nucleoscope.learn.encode import untrained
from nucleoscope.learn.encoder_model import save_encoder
from nucleoscope.learn.encoder_recipes import encoder_recipe
from nucleoscope.view.certificate import certify, read_embedding

N = 160


def atlas(*, typed: bool = True) -> Atlas:
    rng = np.random.default_rng(0)
    types = rng.integers(0, 2, N)
    x = rng.normal(size=(N, 8))
    x[np.arange(N), types] += 7
    frame = pd.DataFrame(
        {"id": np.arange(1, N + 1), "image": [f"s{i % 8}" for i in range(N)],
         "y": rng.uniform(0, 500, N), "x": rng.uniform(0, 500, N),
         "type": np.array(["a", "b"])[types] if typed else ""}
    )  # fmt: skip
    features = pd.DataFrame(
        {"f_area_um2": 20 + 5 * x[:, 0], "f_other": rng.normal(size=N), "f_unknown": np.nan}
    )
    return Atlas(NucleusTable(frame), unit_rows(x), features=features)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ATLAS with crops in another order than its table."""
    made = atlas()
    place = tmp_path_factory.mktemp("atlas") / "ATLAS"
    write_atlas(place, made)
    rng = np.random.default_rng(1)
    order = rng.permutation(N)
    frame = made.table.frame.iloc[order]
    slides = tuple(sorted(set(frame["image"])))
    pictures = rng.integers(0, 255, (N, 64, 64, 3)).astype(np.uint8)
    dark = frame["type"].to_numpy() == "a"
    pictures[dark] //= 3
    crops = CropStore(
        pictures, pictures, np.zeros((N, 64, 64), np.uint8), np.zeros(N, bool),
        np.array([slides.index(i) for i in frame["image"]]), slides, frame["id"].to_numpy(),
    )  # fmt: skip
    with write_crops(place / "crops.zarr", N, slides) as writer:
        writer.add(crops)
    return place


def test_one_command_makes_one_page(folder: Path, tmp_path: Path) -> None:
    save_encoder(untrained(encoder_recipe("nuc2vec"), seed=1), tmp_path / "model")
    found = certify(folder, tmp_path / "c.html", model=tmp_path / "model", seeds=(0,), labels=(20,))
    names = found.probes["embedding"].tolist()
    assert names == [
        "embedding", "handcrafted features", "embedding and features", "8x8 thumbnails",
        "random network",
    ]  # fmt: skip
    scores = found.probes.set_index("embedding")["linear_f1"]
    assert scores["embedding"] > 0.9
    # The crops were put into the table's order: else darkness would say nothing of the type.
    assert scores["8x8 thumbnails"] > 0.9
    assert set(found.invariance["embedding"]) == {"embedding", "random network"}
    assert found.sensitivity.set_index("embedding").loc["embedding", "spearman"] > 0.7
    text = (tmp_path / "c.html").read_text()
    assert "8x8 thumbnails" in text
    assert "rotation" in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_another_embedding_is_judged_beside_it(tmp_path: Path) -> None:
    made = atlas()
    rng = np.random.default_rng(3)
    frame = made.table.frame[["image", "id"]].sample(frac=1, random_state=0)
    vectors = made.embedding[frame.index].astype(np.float32) + rng.normal(size=(N, 8)) * 0.01
    table = pa.table({"image": frame["image"], "id": frame["id"], "v": list(vectors)})
    pq.write_table(table, tmp_path / "uni.parquet")
    found = certify(made, embedding={"UNI": tmp_path / "uni.parquet"}, seeds=(0,), labels=())
    scores = found.probes.set_index("embedding")["linear_f1"]
    assert scores["UNI"] == pytest.approx(scores["embedding"], abs=0.1)


def test_columns_of_numbers_are_vectors_too(tmp_path: Path) -> None:
    frame = pd.DataFrame({"image": ["a", "a"], "id": [2, 1], "e0": [1.0, 2.0], "e1": [3.0, 4.0]})
    frame.to_parquet(tmp_path / "e.parquet")
    wanted = pd.DataFrame({"image": ["a", "a"], "id": [1, 2]})
    assert read_embedding(tmp_path / "e.parquet", wanted).tolist() == [[2.0, 4.0], [1.0, 3.0]]
    with pytest.raises(InputError, match="1 of 1 nuclei are not in it"):
        read_embedding(tmp_path / "e.parquet", pd.DataFrame({"image": ["b"], "id": [1]}))
    frame.drop(columns="id").to_parquet(tmp_path / "f.parquet")
    with pytest.raises(InputError, match="column 'id'"):
        read_embedding(tmp_path / "f.parquet", wanted)


def test_types_may_come_from_a_table(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="--types"):
        certify(atlas(typed=False), seeds=(0,))
    write_csv(atlas().table.frame, tmp_path / "types.csv")
    found = certify(
        atlas(typed=False), types=tmp_path / "types.csv", test=["s0", "s1"], seeds=(0,), labels=()
    )
    assert found.n_typed == N
    assert found.probes["split"].tolist() == ["given"] * 3


def test_changed_nuclei_need_crops(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="on crops"):
        certify(atlas(), model=tmp_path)
