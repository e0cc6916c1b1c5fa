"""The link of a search in a real browser on a real MLflow server."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from repeatable import free_port

from mmq.tracking.offline import TIMEOUT

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]
FLAGS = (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-dev-shm-usage",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "window-size=1700,1000",
)


@contextmanager
def server(folder):
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    store += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, *store], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        end = time.monotonic() + 600
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=30)
                break
            except OSError:
                log_file = folder / "server.log"
                assert process.poll() is None, log_file.read_text()
                assert time.monotonic() < end, log_file.read_text()
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it would wait for the browser for 30 s
        process.wait()


@pytest.fixture(scope="module")
def searched(tmp_path_factory, fork_server):
    """A short search logged to a tracking server, and what it printed."""
    folder = tmp_path_factory.mktemp("browser")
    with server(folder) as address:
        env = os.environ | {
            "MLFLOW_TRACKING_URI": address, "MMQ_HOME": str(folder), "OMP_NUM_THREADS": "1",
            TIMEOUT: "300",
        }  # fmt: skip
        command = "search --limit 8 --num-beams 1 --bits 3,4,16 --n-trials 5"
        result = fork_server.run(*command.split(), cwd=folder, env=env)
        assert result.returncode == 0, result.stderr
        yield address, result.stdout


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for each in FLAGS:
        options.add_argument(f"--{each}")
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def sees(driver, *texts):
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    redrawn = [StaleElementReferenceException]  # while its text was read

    def all_there(d):
        page = d.find_element(By.TAG_NAME, "body").text
        return all(text in page for text in texts)

    try:
        WebDriverWait(driver, 300, ignored_exceptions=redrawn).until(all_there)
    except Exception as error:
        page = driver.find_element(By.TAG_NAME, "body").text
        raise AssertionError(f"{texts} not on the page:\n{page}") from error


def test_the_link_opens_score_against_bpw_with_the_trials(searched, browser):
    address, output = searched
    link = next(line.split()[1] for line in output.splitlines() if line.startswith("Open:"))
    assert link.startswith(address)
    browser.get(link)
    sees(
        browser, "vqa/accuracy against size", "stored_bpw vs. drop", "Group by: mmq.front",
        "vit=16 qformer=16 llm=16",
    )  # fmt: skip


def test_the_parent_run_starts_with_the_verdict_and_renders_the_front(searched, browser):
    from mlflow import MlflowClient

    address, output = searched
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("mmq").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`mmq.kind` = 'study'")
    paragraphs = [text.strip() for text in output.split("\n\n")]
    verdict = next(text for text in paragraphs if text.startswith("The search gained"))
    browser.get(f"{address}/#/experiments/{experiment}/runs/{parent.info.run_id}")
    sees(browser, verdict)
    browser.get(
        f"{address}/#/experiments/{experiment}/runs/{parent.info.run_id}/artifacts/front.json"
    )
    sees(browser, "stored_bpw", "vit=3 qformer=3 llm=3")


def test_the_front_plot_works_from_its_file_alone(searched, browser, tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(searched[0])
    experiment = client.get_experiment_by_name("mmq").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`mmq.kind` = 'study'")
    path = client.download_artifacts(parent.info.run_id, "front.html", str(tmp_path))
    browser.get(Path(path).as_uri())
    sees(browser, "bits per weight over all parameters (bpw)", "vqa/accuracy", "front (")
