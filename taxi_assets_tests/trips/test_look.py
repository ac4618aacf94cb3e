"""Looks at a source, and months that are restated after they were kept."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from taxi_assets.errors import SourceError, UnavailableError
from taxi_assets.services import YELLOW
from taxi_assets.settings import SAMPLE
from taxi_assets.trips import download
from taxi_assets.trips.download import SourceUnavailableError, Version
from taxi_assets.trips.month import RawMonth
from taxi_assets.trips.source import MonthFile, fetch, look
from taxi_assets.windows import Month
from taxi_assets_tests.site import NAME, PACKED, PLAIN, Act, Handler, Site, answer
from taxi_assets_tests.trips.files import HEADER, row

FEBRUARY = Month(2021, 2)
RESTATED = gzip.compress(PLAIN[::-1], 1, mtime=0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)


def bring(site: Site, home: Path, *, must_confirm: bool = False) -> tuple[MonthFile, list[str]]:
    """Fetch yellow's February; the file, and the lines shown to a person."""
    lines: list[str] = []
    file = fetch(site.template, YELLOW, FEBRUARY, home, lines.append, must_confirm=must_confirm)
    return file, lines


def restate(site: Site) -> None:
    site.etag, site.body = '"two"', RESTATED


# What a look tells


def test_a_look_is_one_head(site: Site) -> None:
    site.modified = "Fri, 05 Feb 2021 10:00:00 GMT"
    seen = look(site.template, YELLOW, FEBRUARY)
    assert seen == Version('"one"', site.modified, len(PACKED))
    assert site.looked == ["/yellow/yellow_tripdata_2021-02.csv.gz"]
    assert site.asked == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_not_published_is_none(site: Site, status: int) -> None:
    site.looks = [answer(status)]
    assert look(site.template, YELLOW, FEBRUARY) is None


@pytest.mark.parametrize("status", [405, 501])
def test_a_server_without_head_is_asked_by_get_and_its_body_left(site: Site, status: int) -> None:
    site.looks = [answer(status)]
    assert look(site.template, YELLOW, FEBRUARY) == Version('"one"', None, len(PACKED))
    assert len(site.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_may_pass(site: Site, status: int) -> None:
    site.looks = [answer(status)]
    with pytest.raises(SourceUnavailableError, match=f"answered {status}"):
        look(site.template, YELLOW, FEBRUARY)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (answer(401), "the server answered 401; give the user and password"),
        (answer(400), "the server answered 400; check TAXI_SOURCE"),
        (answer(302, Location="file:///etc/passwd"), "redirects where it must not"),
    ],
)
def test_refusals_are_terminal(site: Site, act: Act, said: str) -> None:
    site.looks = [act]
    with pytest.raises(SourceError, match=said):
        look(site.template, YELLOW, FEBRUARY)


def test_a_redirect_is_followed(site: Site) -> None:
    site.looks = [answer(302, Location="/elsewhere")]
    assert look(site.template, YELLOW, FEBRUARY) == Version('"one"', None, len(PACKED))


def test_nobody_listens_and_no_secret_is_told() -> None:
    template = f"http://me:s3cret@127.0.0.1:9/{NAME}?token=t0ken"
    with pytest.raises(SourceUnavailableError, match="no answer") as caught:
        look(template, YELLOW, FEBRUARY)
    assert "s3cret" not in str(caught.value)
    assert "t0ken" not in str(caught.value)


def test_a_file_of_this_machine(tmp_path: Path) -> None:
    template = f"{tmp_path}/{NAME}"
    assert look(template, YELLOW, FEBRUARY) is None
    assert look(f"{tmp_path}/none/{NAME}", YELLOW, FEBRUARY) is None
    path = tmp_path / "yellow_tripdata_2021-02.csv.gz"
    path.write_bytes(PACKED)
    seen = look(template, YELLOW, FEBRUARY)
    file = fetch(template, YELLOW, FEBRUARY, tmp_path / "home", lambda _: None)
    assert seen == Version(file.etag, file.last_modified, file.size)
    assert look(f"file://{template}", YELLOW, FEBRUARY) == seen


def test_the_sample_is_always_there() -> None:
    assert look(SAMPLE, YELLOW, FEBRUARY) == Version()


def test_a_template_that_cannot_be_asked() -> None:
    with pytest.raises(SourceError, match="gs:// is not supported"):
        look("gs://b/{service}/{year}/{month}.csv", YELLOW, FEBRUARY)


# Kept months


def test_a_restated_month_is_fetched_anew(site: Site, tmp_path: Path) -> None:
    old, _ = bring(site, tmp_path)
    assert bring(site, tmp_path) == (old, [])
    restate(site)
    new, lines = bring(site, tmp_path)
    assert new.path.read_bytes() == RESTATED
    assert (new.etag, new.size) == ('"two"', len(RESTATED))
    assert new.sha256 != old.sha256
    assert "was restated: it is fetched anew" in lines[0]
    assert bring(site, tmp_path) == (new, [])
    assert (len(site.asked), len(site.looked)) == (2, 3)


@pytest.mark.parametrize(
    ("etag", "modified", "body"),
    [
        (None, "Sat, 06 Feb 2021 10:00:00 GMT", PACKED),
        (None, None, PACKED + gzip.compress(b"more", mtime=0)),
    ],
    ids=["Last-Modified", "size"],
)
def test_without_an_etag_time_or_size_tell(
    site: Site, tmp_path: Path, etag: str | None, modified: str | None, body: bytes
) -> None:
    site.etag, site.modified = None, "Fri, 05 Feb 2021 10:00:00 GMT" if modified else None
    bring(site, tmp_path)
    site.etag, site.modified, site.body = etag, modified, body
    bring(site, tmp_path)
    assert len(site.asked) == 2


def test_the_same_etag_is_the_same_file_whatever_else_is_said(site: Site, tmp_path: Path) -> None:
    bring(site, tmp_path)
    site.etag, site.modified = 'W/"one"', "Sat, 06 Feb 2021 10:00:00 GMT"
    bring(site, tmp_path)
    assert len(site.asked) == 1


@pytest.mark.parametrize("status", [401, 404, 429, 503])
def test_a_server_that_does_not_confirm_leaves_the_kept_month_in_use(
    site: Site, tmp_path: Path, status: int
) -> None:
    kept, _ = bring(site, tmp_path)
    site.looks = [answer(status)] * 2
    file, lines = bring(site, tmp_path)
    assert file == kept
    assert "the file kept here is used as it is" in lines[0]
    with pytest.raises((SourceError, SourceUnavailableError)):
        bring(site, tmp_path, must_confirm=True)


def test_offline_the_kept_month_is_used(site: Site, tmp_path: Path) -> None:
    bring(site, tmp_path)
    note = next(tmp_path.rglob("*.csv.gz.json"))
    gone = f"http://127.0.0.1:9/{{service}}/{NAME}"
    with pytest.raises(SourceUnavailableError):
        fetch(gone, YELLOW, FEBRUARY, tmp_path, lambda _: None)
    lines: list[str] = []
    folder = next(path for path in (tmp_path / "downloads/yellow").iterdir() if path != note.parent)
    for path in (note, note.with_name(note.name.removesuffix(".json"))):
        path.rename(folder / path.name)
    file = fetch(gone, YELLOW, FEBRUARY, tmp_path, lines.append)
    assert file.path.read_bytes() == PACKED
    assert "no answer" in lines[0]


def test_a_restated_month_that_does_not_come_whole_fails_and_is_resumed(
    site: Site, tmp_path: Path
) -> None:
    bring(site, tmp_path)
    restate(site)
    site.acts = [answer(503)] * download.ATTEMPTS
    with pytest.raises(SourceUnavailableError):
        bring(site, tmp_path)
    assert bring(site, tmp_path)[0].path.read_bytes() == RESTATED


def test_killed_between_note_and_name_the_old_file_does_not_pass_for_the_new(
    site: Site, tmp_path: Path
) -> None:
    """Same size, so that nothing but the missing file tells."""
    site.body = PLAIN
    site_template = site.template.removesuffix(".gz")
    old = fetch(site_template, YELLOW, FEBRUARY, tmp_path, lambda _: None)
    site.etag, site.body = '"two"', PLAIN[:-1] + b"x"

    def die(self: Path, target: Path) -> Path:
        if self.suffix == ".part" and not target.name.endswith(".json"):
            raise KeyboardInterrupt
        return original(self, target)

    original = Path.replace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            fetch(site_template, YELLOW, FEBRUARY, tmp_path, lambda _: None)
    assert json.loads(old.path.with_name(f"{old.path.name}.json").read_text())["etag"] == '"two"'
    new = fetch(site_template, YELLOW, FEBRUARY, tmp_path, lambda _: None)
    assert new.path.read_bytes() == site.body


def test_a_month_replaced_while_it_is_read_is_read_again(site: Site, tmp_path: Path) -> None:
    def csv(handler: Handler) -> None:
        site.body = gzip.compress(HEADER + row() + b"\n")
        handler.wfile.write(handler.begin())

    site.acts = [csv]
    file, _ = bring(site, tmp_path)
    month = RawMonth(file, list(FEBRUARY.window), 1.0)
    assert len(list(month.pass_over(lambda _: None))) == 1
    file.path.write_bytes(site.body)
    with pytest.raises(UnavailableError, match="was replaced while it was read"):
        list(month.pass_over(lambda _: None))
    file.path.unlink()
    with pytest.raises(UnavailableError, match="was replaced"):
        list(month.pass_over(lambda _: None))
