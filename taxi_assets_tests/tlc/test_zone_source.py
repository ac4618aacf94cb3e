"""Zone polygons by path or URL, as TAXI_ZONES names them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taxi_assets.errors import SourceError
from taxi_assets.settings.areas import LimitSettings
from taxi_assets.tlc.zone_polygons import ZonePolygons
from taxi_assets.tlc.zone_source import load_zone_polygons
from taxi_assets_tests.fake_http_server import answer, serving
from taxi_assets_tests.tlc.zones import ZONES, write_geojson, write_zip

LIMITS = LimitSettings(download_timeout_seconds=20)


def load(address: str, folder: Path) -> ZonePolygons:
    return load_zone_polygons(address, folder / "downloads", LIMITS, lambda _: None)


def test_file_is_read_once_per_process_until_it_changes(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "zones.geojson")
    first = load(str(path), tmp_path)
    assert load(str(path), tmp_path) is first
    path.write_text(path.read_text().replace('"41"', '"40"'))
    os.utime(path, (1, 1))
    assert load(str(path), tmp_path).version != first.version
    with pytest.raises(SourceError, match=r"TAXI_ZONES: .*none\.shp cannot be read"):
        load(str(tmp_path / "none.shp"), tmp_path)
    with pytest.raises(SourceError, match=r"is a folder: name the \.shp"):
        load(str(tmp_path), tmp_path)


def test_url_is_downloaded_once_and_invalid_content_is_not_cached(tmp_path: Path) -> None:
    zipped = write_zip(tmp_path / "zones.zip", tmp_path / "unpacked").read_bytes()
    with serving() as site:
        site.body = zipped
        url = f"{site.address}/misc/taxi_zones.zip?token=secret"
        for _ in range(2):
            assert sorted(load(url, tmp_path).ids.tolist()) == sorted(ZONES)
        assert len(site.get_requests) == 1
        site.body = b"<html>gone</html>"
        other = f"{site.address}/misc/other.zip?token=secret"
        for _ in range(2):
            with pytest.raises(SourceError, match=r"other\.zip cannot be unpacked") as raised:
                load(other, tmp_path)
            assert "secret" not in str(raised.value)
        assert len(site.get_requests) == 3
        site.body = zipped
        assert sorted(load(other, tmp_path).ids.tolist()) == sorted(ZONES)


def test_missing_url_is_named_without_its_secret(tmp_path: Path) -> None:
    with serving() as site:
        site.get_faults = [answer(404)]
        with pytest.raises(SourceError) as raised:
            load(f"{site.address}/zones.zip?token=secret", tmp_path)
    assert "TAXI_ZONES" in str(raised.value)
    assert "secret" not in str(raised.value)
