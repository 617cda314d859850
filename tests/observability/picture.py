"""The dashboard as a picture, to be looked at: not Grafana, but the same queries over the same data.

    python3 -m venv V && V/bin/pip install matplotlib
    V/bin/python tests/observability/panels.py PROMETHEUS LIFEBOAT FOLDER PICTURE.png
"""

import math

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def legend(target, metric):
    text = target["legendFormat"] or target["expr"][:40]
    for name, value in metric.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def draw(drawn, path):
    titles = list(dict.fromkeys(panel["title"] for panel, _, _ in drawn))
    columns = 3
    figure, axes = plt.subplots(math.ceil(len(titles) / columns), columns, figsize=(18, 3 * len(titles) / columns))
    zero = min((float(row["values"][0][0]) for _, _, result in drawn for row in result), default=0)
    for title, axis in zip(titles, axes.flat):
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=7)
        for panel, target, result in drawn:
            if panel["title"] != title:
                continue
            for row in result[:12]:
                points = [(float(at) - zero, float(value)) for at, value in row["values"]]
                if any(value for _, value in points):
                    axis.plot(*zip(*points), label=legend(target, row["metric"])[:40], linewidth=1)
        if axis.lines:
            axis.legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
