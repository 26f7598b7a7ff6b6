"""What every figure must be: readable."""

from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from brainrdl.analysis.figures.style import print_style


@pytest.fixture
def assert_readable():
    return _assert_readable


def _assert_readable(figure):
    """Every piece of text lies inside the figure, none touches another, none is smaller than 5 points."""
    with print_style():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        hidden = _undrawn_tick_labels(figure)
        texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden]
        boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in texts]
    assert boxes
    width, height = canvas.get_width_height()
    for text, box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, f"'{text}' is cut off"
    for (one, a), (other, b) in combinations(boxes, 2):
        x = min(a.x1, b.x1) - max(a.x0, b.x0)
        y = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert x < 1 or y < 1, f"'{one}' and '{other}' overlap"
    assert min(text.get_fontsize() for text in texts) >= 5


def _undrawn_tick_labels(figure):
    """A tick outside its axis' limits keeps its label, but does not draw it."""
    hidden = set()
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        outside = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
        hidden |= {label for tick in outside for label in (tick.label1, tick.label2)}
    return hidden
