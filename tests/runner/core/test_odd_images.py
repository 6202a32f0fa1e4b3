"""A folder with images that cannot be read: each is put aside with its sentence, the rest seen."""

from pathlib import Path

from paddock.engine.settings import PoolSettings
from paddock.runner.api import run
from paddock.runner.settings import Settings
from tests.fakes.eyes import write_family
from tests.fakes.odd_images import REFUSED, SEEN
from tests.runner.world import run_arguments, states

PIPELINE = """\
models: {{eyes: {{ref: {model}}}}}
steps:
  - {{id: scan, uses: files.scan, with: {{root: ./pictures}}}}
  - id: each
    for_each: file in steps.scan.files
    do:
      - id: look
        uses: chat
        with: {{prompt: "?", images: ["{{{{ file.path }}}}"], params: {{max_tokens: 1}}}}
"""


def test_images_that_cannot_be_read_are_put_aside_and_the_others_are_seen(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    images = {name: data for name, (data, _) in REFUSED.items()}
    for name, data in (images | dict(SEEN)).items():
        (tmp_path / "pictures" / name).write_bytes(data)
    model, _ = write_family("llava", tmp_path)
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE.format(model=model))
    pool = PoolSettings(n_threads=1, cache_dir=tmp_path, models_dir=tmp_path, profile_s=0)
    settings = Settings(pool=pool, state_dir=tmp_path / "state")
    report = run(file, None, *run_arguments(local=True, settings=settings))
    done = dict.fromkeys(SEEN, "new")
    assert states(report) == done | dict.fromkeys(REFUSED, "quarantined")
    errors = {item.key: item.error for item in report.items if item.step == "each" and item.error}
    sentences = {name: sentence for name, (_, sentence) in REFUSED.items()}
    assert errors == {
        key: f"step 'look': image 1 {sentence}" for key, sentence in sentences.items()
    }
