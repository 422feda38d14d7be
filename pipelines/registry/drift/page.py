"""The drift report: one HTML page of numbers and distributions, without faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.core.pages import render_page
from pipelines.evaluation.pictures import svg_uri
from pipelines.evaluation.plots import STYLE, svg
from pipelines.registry.drift.features import EMBEDDING, MEANINGS, NUMBERS, WORDS, Sample
from pipelines.registry.drift.verdict import Verdict

_BEFORE, _NOW = "#9aa5b1", "#2563a8"
_AXES = {"yaw": "yaw, degrees", "pitch": "pitch, degrees", "brightness": "mean luminance", "size": "pixels"}


def write_page(verdict: Verdict, reference: Sample, current: Sample) -> str:
    """Return the page as HTML."""
    plots = [(name, _numbers(name, reference, current)) for name in NUMBERS]
    plots += [(name, _words(name, reference, current)) for name in WORDS]
    plots.insert(0, (EMBEDDING, _people(reference, current)))
    return render_page(Path(__file__).with_name("drift.html.j2"), verdict=verdict, plots=plots, meanings=MEANINGS)


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 2.4))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _uri(figure: Any) -> str:
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        return svg_uri(svg(figure))


def _numbers(name: str, reference: Sample, current: Sample) -> str:
    figure, axes = _figure()
    found = [sample.numbers[name][~np.isnan(sample.numbers[name])] for sample in (reference, current)]
    # Sizes are kept as logarithms. Rounded: equal values must not differ by the last digits of a float.
    values = [np.round(np.exp2(part) if name == "size" else part, 3) for part in found]
    both = np.concatenate(values)
    if len(both):
        edges = np.histogram_bin_edges(both, 30)  # of equal values: half a unit to both sides
        for part, colour, label in zip(values, (_BEFORE, _NOW), ("champion's version", "new version"), strict=True):
            weights = np.full(len(part), 1 / max(len(part), 1))
            axes.hist(part, edges, weights=weights, color=colour, histtype="step", linewidth=1.6, label=label)
        axes.legend(frameon=False, fontsize=7)
    axes.set_xlabel(_AXES[name])
    axes.set_ylabel("share of photos")
    return _uri(figure)


def _people(reference: Sample, current: Sample) -> str:
    """Draw the embeddings along the first two principal axes of both samples; it shows nobody."""
    from sklearn.decomposition import PCA

    figure, axes = _figure()
    parts = [one.embeddings[~np.isnan(one.embeddings[:, 0])] for one in (reference, current)]
    both = np.concatenate(parts)
    if len(both) > 2:
        places = PCA(2, random_state=0).fit_transform(both)
        for part, colour in ((places[: len(parts[0])], _BEFORE), (places[len(parts[0]) :], _NOW)):
            axes.scatter(*part.T, s=4, color=colour, alpha=0.5, linewidths=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("first principal axis of the embeddings")
    axes.set_ylabel("second")
    return _uri(figure)


def _words(name: str, reference: Sample, current: Sample) -> str:
    figure, axes = _figure()
    before, now = (sample.words[name][sample.words[name] != ""] for sample in (reference, current))
    words = np.union1d(before, now)
    places = np.arange(len(words))
    for part, colour, shift in ((before, _BEFORE, -0.2), (now, _NOW, 0.2)):
        axes.barh(
            places + shift, (part[:, None] == words).mean(axis=0) if len(part) else 0 * places, 0.38, color=colour
        )
    axes.set_yticks(places, words)
    axes.set_xlabel("share of photos")
    return _uri(figure)
