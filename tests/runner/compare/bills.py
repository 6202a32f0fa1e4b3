"""A folder of small bills, a pipeline that reads them, and two models that differ."""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from paddock.engine.request import ChatRequest
from paddock.engine.system.item_samples import ItemSample
from paddock.pipelines.comparison_keys import CompareKeys
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.variations import variants_of, varied_options
from paddock.runner.compare.comparison import Comparison, GoldSource, compare
from paddock.runner.compare.gold import read_gold
from paddock.runner.compare.variant_runs import ComparedPipeline, VariantRun, run_variants
from paddock.runner.compare.variants import compared_step
from paddock.runner.progress.events import Observer
from paddock.runner.settings import Settings
from tests.fakes.pool import FakePool
from tests.runner.world import ReviewedWorld, settings

BILLS = """\
name: bills
inputs:
  out: {type: dir, default: ./out}
models:
  clerk: {ref: small, ctx: 2k}   # the clerk
steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.out }}/../inbox"}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - id: bill
        uses: chat
        with:
          model: clerk
          prompt: {file: prompts/a.md}   # the best so far
          params: {max_tokens: 60}
        reply:
          schema: {number: str, total: float, kind: "enum[food, travel]"}
          evidence: steps.text
        review: {when: evidence.missing}
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}.json", text: "{{ steps.bill.text }}"}
    returns: {file: doc.relpath, total: steps.bill.output.total}
  - {uses: files.write, with: {path: out/bills.csv, rows: "{{ steps.each.results }}"}}
gold: {from: gold.csv, key: doc.relpath, metrics: {total: {number: 0.01}}}
"""
N_BILLS = 20


def kind_of(n: int) -> str:
    return ("food", "travel")[n % 2]


def right_answer(n: int) -> dict[str, Any]:
    return {"number": f"R-{n}", "total": n + 0.5, "kind": kind_of(n)}


def clerk(request: ChatRequest) -> str:
    """Answer rightly as model `big`; `small` takes every bill for food."""
    text = "\n".join(message.content for message in request.messages)
    n = int(text.partition("Bill R-")[2].partition(":")[0])
    answer = right_answer(n)
    if request.model.ref == "small":
        answer["kind"] = "food"
    return json.dumps(answer)


def varied(
    models: Iterable[str] = (), prompts: Iterable[str] = (), settings: Iterable[str] = ()
) -> CompareKeys:
    """Return what the options of the command line vary."""
    return CompareKeys.model_validate(varied_options(models, prompts, settings))


@dataclass
class Bills(ReviewedWorld):
    text: str = BILLS
    answer: Callable[[ChatRequest], str] = clerk
    gold: str | None = None
    made: FakePool = field(default_factory=FakePool)
    pool_kind: Callable[..., FakePool] = FakePool

    def __post_init__(self) -> None:
        super().__post_init__()
        for n in range(N_BILLS):
            self.write(f"inbox/{n:02}.txt", f"Bill R-{n}: {n}.50 for {kind_of(n)}.")
        self.write("prompts/a.md", "Read this. {{ steps.text.text }}")
        self.write("prompts/b.md", "Read this with care. {{ steps.text.text }}")
        rows = [f"{n:02}.txt,{n}.50,{kind_of(n)}" for n in range(N_BILLS)]
        self.write("gold.csv", "\n".join(["relpath,total,kind", *rows]))

    def settings(self) -> Settings:
        return settings(self.folder)

    def runs(
        self,
        *,
        models: tuple[str, ...] = (),
        prompts: tuple[str, ...] = (),
        settings: tuple[str, ...] = (),
        step: str | None = None,
        key: str = "doc.relpath",
        **options: Any,
    ) -> list[VariantRun]:
        """Run variants; `made` has the requests of this comparison."""
        self.made = self.pool_kind(answer=self.answer)
        plan = read_plan(self.file)
        variants = variants_of(varied(models, prompts, settings), plan.pipeline)
        compared = ComparedPipeline(
            self.file,
            plan,
            compared_step(plan, variants, step),
            {},
            self.settings(),
            key=key,
            pool=self.made,
            **options,
        )
        return run_variants(compared, variants, lambda variant: nullcontext(Observer()))

    def compare(
        self, *, gold: str | None = "gold.csv", sample: ItemSample | None = None, **varied: Any
    ) -> Comparison:
        runs = self.runs(sample=sample, **varied)
        read = None
        if gold is not None:
            read = read_gold((self.folder / gold).read_text("utf-8"), gold, "relpath")
        return compare("bills", "bill", runs, GoldSource(read, {"total": ("number", 0.01)}))

    def files(self) -> Mapping[str, str]:
        """Return the text of every file outside of the ledger."""
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        inside = (self.folder / ".paddock", self.folder / "cache", self.folder / "state")
        return {
            str(path.relative_to(self.folder)): path.read_text("utf-8")
            for path in paths
            if not any(path.is_relative_to(folder) for folder in inside)
        }
