# %% [markdown]
# # Nuclei in scanpy and squidpy
#
# `nucleoscope convert OUT/tile tile.h5ad` writes what `detect` found as AnnData, and
# `nucleoscope convert ATLAS atlas.h5ad` an atlas with its embedding. This page does the first on a
# simulated tile, so that it runs anywhere: `pip install 'nucleoscope[spatial]' squidpy`, then open
# it as a notebook (jupytext, VS Code, PyCharm) or run it with python.

# %%
import tempfile
from pathlib import Path

import anndata
import squidpy as sq

import nucleoscope
from nucleoscope.nuclei.measure import measure

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Nuclei
#
# A tile with known nuclei stands for the result of `nucleoscope detect`.

# %%
(scene,) = nucleoscope.simulate(kind="histology", n=1, size=512, seed=3)
table = measure(scene.labels, image="tile").frame
types = scene.truth.set_index("id")["type"]
nuclei = nucleoscope.Nuclei(
    nucleoscope.NucleusTable(table.assign(type=types.reindex(table["id"]).to_numpy())),
    None,
    scene.labels,
)
facts = nucleoscope.convert(nuclei, folder / "tile.h5ad")

# %% [markdown]
# ## Where things are
#
# | place | what |
# |---|---|
# | `obs` | the nucleus table: `type`, `score`, areas, ... |
# | `X`, `var_names` | interpretable features `f_*` of an atlas; no columns without one |
# | `obsm["spatial"]` | centres as `(x, y)`, `(x, y, z)` of stacks |
# | `uns["nucleoscope"]["unit"]` | `um` where the scale is known, else `px` |
# | `obsm["X_nuc2vec"]`, `obsm["X_umap"]` | embedding and 2D map of an atlas |

# %%
data = anndata.read_h5ad(folder / "tile.h5ad")
unit = data.uns["nucleoscope"]["unit"]

# %% [markdown]
# ## Who stands next to whom

# %%
sq.gr.spatial_neighbors(data, coord_type="generic", delaunay=True)
sq.gr.nhood_enrichment(data, cluster_key="type", n_perms=200, seed=0, show_progress_bar=False)
zscore = data.uns["type_nhood_enrichment"]["zscore"]
sq.gr.centrality_scores(data, cluster_key="type", show_progress_bar=False)

# %% [markdown]
# squidpy shuffles the types over all nuclei, so a tissue with regions always looks enriched;
# [Ask who stands next to whom](../how-to/spatial.md) says what nucleoscope does instead.
#
# ## With an atlas
#
# ```python
# nucleoscope.convert("ATLAS", "atlas.h5ad")
# data = anndata.read_h5ad("atlas.h5ad")
# sc.pp.neighbors(data, use_rep="X_nuc2vec")
# sc.tl.leiden(data)
# sc.pl.embedding(data, "X_umap", color=["subtype", "leiden"])
# ```
