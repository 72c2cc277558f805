"""``report.html``: what it says, that text stays text, and how it behaves in a browser."""

import html.parser
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from report_results import HOSTILE, sample_results

from fewstep.eval.reports.html import page
from fewstep.eval.reports.report import write_report
from fewstep.eval.reports.summary import without_reference

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
VOID = {"meta", "link", "img", "br"}
# What Chromium asks for by itself, for the time and for updates.
OWN = ("update.googleapis.com:443", "http://clients2.google.com/time/",
       "accounts.google.com:443")  # fmt: skip


class Elements(html.parser.HTMLParser):
    """Tags with their attributes, and whether they close in the order they opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


def test_the_page_asks_for_nothing() -> None:
    text = page(sample_results())
    elements = Elements(text)
    links = [a.get(k) for _, a in elements.found for k in ("src", "href") if k in a]
    assert all(link is not None and link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"url\(|@import|https?://", text)
    (policy,) = (a["content"] for a in elements.tags("meta") if "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")


@pytest.mark.parametrize("where", ["sampler", "problem", "guidance", "env", "settings", "metric"])
def test_text_of_users_is_escaped(where: str) -> None:
    results = sample_results(
        samplers=(HOSTILE if where == "sampler" else "ddim",),
        problem=HOSTILE if where == "problem" else "fashion",
        guidance=("none", HOSTILE if where == "guidance" else "cfg:2"),
    )
    if where == "env":
        results.env |= {"commit": HOSTILE, "device": f'">{HOSTILE}'}
        results.env["extractor"]["name"] = HOSTILE
    elif where == "settings":
        results.settings = {HOSTILE: f"</pre>{HOSTILE}"}
    elif where == "metric":
        results.rows = [replace(row, metrics={f'"{HOSTILE}': 1.0}) for row in results.rows]
    text = page(results)
    assert HOSTILE not in text
    assert "gotcha" in text
    assert len(Elements(text).tags("script")) == 1


def test_the_page_says_what_was_run() -> None:
    texts = re.sub(r"\s+", " ", " ".join(Elements(page(sample_results())).texts))
    for fact in (
        "fd-cnn:fashion eeeeeeeeeeeeeeee", "fashion aaaaaaaaaaaaaaaa", "60,000", "ffffffffffffffff",
        "torch 2.14.1", "0123456789ab", "bitwise: the same bits", "FD-fashion-24",
        "RMSE to the reference, n = 24", "not comparable with published FID", "Pareto front",
        "0.2562 ± 0.0088", "min 0.2500",
    ):  # fmt: skip
        assert fact in texts, fact


def test_the_first_front_is_that_of_the_distance_to_the_solution() -> None:
    """A distance between small sets differs as much between seeds as between samplers."""
    text = page(sample_results())
    assert text.index('<section id="rmse">') < text.index('<section id="fd_fashion">')
    (shown,) = re.findall(
        r'<section id="([a-z_]+)">(?:(?!<section).)*<details open>', text, re.DOTALL
    )
    assert shown == "rmse"


def test_pictures_and_the_result_come_first_and_hashes_last() -> None:
    text = page(sample_results())
    order = ['<section id="seeds">', '<section id="rmse">', '<section id="time">',
             '<section id="rows">', "Fingerprint", "0123456789ab"]  # fmt: skip
    places = [text.index(mark) for mark in order]
    assert places == sorted(places)


def test_an_fid_of_fifty_thousand_has_no_note() -> None:
    results = sample_results(n=50_000)
    results.env["extractor"] = {"name": "inception:edm", "sha256": "e", "comparable": True}
    results.rows = [replace(row, metrics={"fid": 3.0, "kid": 0.001}) for row in results.rows]
    assert "not comparable" in page(results)  # a benchmark takes classes in turn
    results.settings["calc"] = {}
    text = page(results)
    assert "FID-50k" in text
    assert "KID-10k" in text  # which takes 10,000 of them
    assert "not comparable" not in text
    results.rows = [replace(row, n=5000) for row in results.rows]
    text = page(results)
    assert "FID-5k, KID-5k: not comparable with published FID" in text


def test_runs_that_all_diverged_have_a_report_too(tmp_path: Path) -> None:
    results = sample_results(samplers=("ddim",))
    results.rows = [replace(row, metrics={}) for row in results.rows]
    write_report(results, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "<h2>Time</h2>" in text
    # Without guidance nothing draws at random.
    (line,) = [line for line in without_reference(results) if "`none`" in line]
    assert "not finite" in line
    assert "draws at random" not in line


@pytest.mark.parametrize("value", [0.0, -0.5, 1e-12, 1e9])
def test_plots_take_any_finite_value(value: float) -> None:
    results = sample_results(guidance=("none",))
    for i, row in enumerate(results.rows):
        row.metrics["rmse"] = value * (1 + i)
    results.rows[0] = replace(results.rows[0], seconds=0.0)
    text = page(results)
    assert "nan" not in re.sub(r'src="[^"]*"', "", text)
    for points in re.findall(r'points="([^"]*)"', text):
        for x, y in (pair.split(",") for pair in points.split()):
            assert 0 <= float(x) <= 460
            assert 0 <= float(y) <= 320


class Browser:
    """Headless Chromium whose every request goes to a server of ours."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.errors = folder, list[str](), ""
        browser = self

        class Server(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                browser.note(self.path)
                path = folder / self.path.rpartition("/")[2]
                content = path.read_bytes() if path.is_file() else b""
                self.send_response(200 if content else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(content)

            def do_CONNECT(self) -> None:
                browser.note(self.path)
                self.send_error(403)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def note(self, address: str) -> None:
        if not address.startswith(OWN):
            self.asked.append(address)

    def dump(self, name: str, *options: str) -> str:
        """The page after its scripts; ``asked`` and ``errors`` are of this visit."""
        assert CHROMIUM is not None
        self.asked.clear()
        port = self.server.server_address[1]
        done = subprocess.run(
            [
                CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                f"--user-data-dir={self.folder / 'profile'}", "--enable-logging=stderr",
                f"--proxy-server=127.0.0.1:{port}", "--proxy-bypass-list=<-loopback>",
                "--virtual-time-budget=2000", *options, "--dump-dom", f"http://report.test/{name}",
            ],
            capture_output=True, text=True, timeout=60, check=True,
            env=os.environ | {"HOME": str(self.folder)},
        )  # fmt: skip
        self.errors = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
        return done.stdout


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    text = page(sample_results(samplers=("ddim", HOSTILE, "unipc")))
    (tmp_path / "report.html").write_text(text)
    browser = Browser(tmp_path)
    yield browser
    browser.server.shutdown()
    browser.server.server_close()


def with_script(folder: Path, script: str) -> str:
    """A copy of the page that runs one more script, which its policy would not let."""
    text = (folder / "report.html").read_text()
    text = re.sub(r"<meta http-equiv[^>]*>", "", text)
    (folder / "probe.html").write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    return "probe.html"


@needs_chromium
def test_the_browser_asks_for_nothing_else_and_finds_no_error(browser: Browser) -> None:
    text = browser.dump("report.html")
    assert "FD-fashion-24" in text
    assert "<title>Benchmark: fashion" in text  # no script of a sampler's name has run
    assert browser.asked == ["http://report.test/report.html"]
    assert browser.errors == ""


@needs_chromium
def test_the_policy_stops_scripts_that_are_not_ours(browser: Browser) -> None:
    """So the test above would see one, and the console is heard."""
    text = (browser.folder / "report.html").read_text()
    more = "<script>document.title='gotcha'</script><img src='http://elsewhere.test/x.png'>"
    (browser.folder / "probe.html").write_text(text.replace("</body>", f"{more}</body>"))
    assert "<title>gotcha" not in browser.dump("probe.html")
    assert browser.asked == ["http://report.test/probe.html"]
    assert "Content Security Policy" in browser.errors


@needs_chromium
def test_heads_sort_their_column(browser: Browser) -> None:
    script = """
    const table = document.querySelector("#rows table");
    const heads = [...table.tHead.rows[0].cells];
    const text = (cell) => cell.dataset.n ?? cell.textContent.trim();
    const read = (i) => [...table.tBodies[0].rows].map((row) => text(row.cells[i]));
    const found = {};
    for (const name of ["time/image", "sampler", "fd_fashion"]) {
      const i = heads.findIndex((head) => head.textContent === name);
      for (const order of ["ascending", "descending"]) {
        heads[i].firstElementChild.click();
        found[`${name} ${heads[i].ariaSort}`] = read(i);
      }
    }
    found.sorted = heads.filter((head) => head.ariaSort !== "none").length;
    document.body.innerHTML = "";
    document.body.textContent = JSON.stringify(found);
    """
    text = browser.dump(with_script(browser.folder, script))
    found = json.loads(re.search(r"<body>(.*?)</body>", text, re.DOTALL)[1].replace("&lt;", "<")
                       .replace("&gt;", ">").replace("&amp;", "&"))  # fmt: skip
    assert found["sorted"] == 1
    for name in ("time/image", "fd_fashion"):
        numbers = [float(value) for value in found[f"{name} ascending"]]
        assert len(numbers) == 24
        assert numbers == sorted(numbers)
        assert [float(v) for v in found[f"{name} descending"]] == sorted(numbers, reverse=True)
    names = found["sampler ascending"]
    assert {tuple(names[i : i + 8]) for i in (0, 8, 16)} == {
        ("ddim",) * 8, ("unipc",) * 8, (HOSTILE,) * 8
    }  # fmt: skip
    assert names != found["sampler descending"]


@needs_chromium
@pytest.mark.parametrize("width", [400, 800, 1280])
def test_the_page_never_scrolls_sideways(browser: Browser, width: int) -> None:
    """Wide tables scroll within themselves."""
    (browser.folder / "frame.html").write_text(
        f"<iframe src='report.html' style='width:{width}px;height:900px'></iframe>"
        "<script>onload = () => { const page = document.querySelector('iframe').contentDocument;"
        "document.title = [page.documentElement.scrollWidth, page.documentElement.clientWidth,"
        "[...page.querySelectorAll('.scroll')].every((e) => e.offsetHeight > 40)].join(' '); }"
        "</script>"
    )
    text = browser.dump("frame.html", "--window-size=1400,1000")
    found = re.search(r"<title>(\d+) (\d+) true</title>", text)
    assert found is not None, text[:300]
    assert int(found[1]) <= int(found[2]) <= width
