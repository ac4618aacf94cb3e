"""Draw the map of a month's pickups: taxi zones coloured by trips, for the page and the picture.

The polygons of TLC (the Taxi & Limousine Commission) come from TAXI_ZONES; without them a report
has no map. The colour scale is logarithmic, because the busiest zone has thousands of times the
trips of the quietest.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taxi_assets.report.colours import LIGHT, pick_colour_step
from taxi_assets.report.figures import MonthFigures
from taxi_assets.report.zones import find_zone
from taxi_assets.tlc.zone_polygons import ZonePolygons

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 640.0
TOLERANCE = WIDTH / 700
"""Tolerance of an outline, in the units of `WIDTH`: finer detail is invisible and enlarges the
page."""
NARROWER = math.cos(math.radians(40.7))
"""Length of a degree of longitude in New York, in degrees of latitude."""

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Shape:
    """A zone: its outlines, north up, and its colour."""

    outlines: list[Points]
    step: int | None
    """Index of its colour; None if no trip began there."""
    hint: str

    @property
    def path(self) -> str:
        """The outlines as an SVG path."""
        return "".join(
            f"M{'L'.join(f'{x:.1f} {y:.1f}' for x, y in outline)}Z" for outline in self.outlines
        )


@dataclass(frozen=True)
class ZoneMap:
    """All zones of the map, in its units."""

    shapes: list[Shape]
    height: float
    most: int
    """Number of trips of the busiest zone."""
    width: float = WIDTH


def layout_zone_map(figures: MonthFigures, polygons: ZonePolygons | None) -> ZoneMap | None:
    """Lay out the zones with their pickups; None without polygons or pickup zones."""
    counts = {zone: trips for zone, trips in figures.zones.items() if zone is not None}
    if polygons is None or not counts:
        return None
    import shapely

    west, south, east, north = shapely.total_bounds(polygons.polygons).tolist()
    scale = WIDTH / ((east - west) * NARROWER)

    def place(points: Any) -> Any:
        points[:, 0] = (points[:, 0] - west) * NARROWER * scale
        points[:, 1] = (north - points[:, 1]) * scale
        return points

    drawn = shapely.simplify(shapely.transform(polygons.polygons, place), TOLERANCE)
    outlines: dict[int, list[Points]] = defaultdict(list)
    for zone, polygon in zip(polygons.ids.tolist(), drawn, strict=True):
        outlines[zone] += [
            [(x, y) for x, y in shapely.get_coordinates(ring).tolist()]
            for part in shapely.get_parts(polygon)
            for ring in shapely.get_rings(part)
        ]
    most = max(counts.values())
    shapes = [_build_shape(zone, rings, counts, most) for zone, rings in sorted(outlines.items())]
    return ZoneMap(shapes, (north - south) * scale, most)


def _build_shape(zone: int, outlines: list[Points], counts: Mapping[int, int], most: int) -> Shape:
    trips = counts.get(zone, 0)
    step = pick_colour_step(math.log(trips), 0, math.log(most)) if trips else None
    taxi_zone = find_zone(zone)
    name = f"{taxi_zone.name}, {taxi_zone.borough}" if taxi_zone.borough else taxi_zone.name
    return Shape(outlines, step, f"{name}: {trips:,} trips")


def draw_zone_map(axes: Axes, zone_map: ZoneMap) -> None:
    """Draw the map into the axes of a picture."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    for shape in zone_map.shapes:
        rings = [Path(outline, closed=True) for outline in shape.outlines]
        colour = LIGHT.paper if shape.step is None else LIGHT.steps[shape.step]
        path = Path.make_compound_path(*rings)
        axes.add_patch(PathPatch(path, facecolor=colour, edgecolor=LIGHT.line, linewidth=0.3))
    axes.set_xlim(0, zone_map.width)
    axes.set_ylim(zone_map.height, 0)
    axes.set_aspect("equal", anchor="E")
    axes.set_xticks([])
    axes.set_yticks([])
