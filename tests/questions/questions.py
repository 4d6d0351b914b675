"""The questions of docs/questions.md: what is asked, the command that answers, and how the answering lines begin. The document is
written from this list and from what the commands print."""

import dataclasses

CLUSTER = "1x2xh100-sxm,ib100+1x2xa100-40gb-sxm,ib100"
PLAN = f"launch plan llama-7b.yaml --cluster {CLUSTER}"
CHEAP = "launch plan llama-1b.yaml --cluster 1x4xa100-80gb-pcie,ib100 --objective cost"
EXPLAIN = f"launch explain plan.json --job llama-7b.yaml --cluster {CLUSTER}"


@dataclasses.dataclass
class Command:
    name: str  # of its recorded output
    text: str
    before: list = dataclasses.field(default_factory=list)  # commands that write the files it reads
    code: int = 0


COMMANDS = [
    Command("plan", PLAN),
    Command("unused", "launch plan llama-1b.yaml --cluster 1x2xa100-80gb-sxm,eth10+1x1xt4,eth10"),
    Command("tight", "launch plan llama-7b.yaml --cluster 1x2xh100-sxm"),
    Command("cost", CHEAP),
    Command("cost_limited", CHEAP + " --max-step-seconds 1.0"),
    Command("cost_too_fast", CHEAP + " --max-step-seconds 0.65 --max-cost-per-step 0.00095", code=69),
    Command("cost_free", "launch plan llama-1b.yaml --cluster 1x2xv100-32gb --objective cost", code=65),
    Command("priced", "launch plan llama-1b.yaml --cluster 1x2xv100-32gb --price v100-32gb=1.10 --objective cost"),
    Command("conflict", PLAN + " --constrain tensor=1 --constrain zero=0 --constrain pipeline=1 --constrain offload=none --constrain recompute=none", code=69),
    Command("contradiction", "launch plan llama-1b.yaml --cluster 1x4xa100-80gb-sxm --constrain micro=2 --constrain data=4 --constrain recompute=none", code=65),
    Command("too_fast", PLAN + " --max-step-seconds 0.1", code=69),
    Command("slower", EXPLAIN + " --against mine.json",
            [PLAN + " --out plan.json", PLAN + " --constrain pipeline=4 --constrain tensor=1 --out mine.json"]),
    Command("misfit", EXPLAIN + " --against roomy.json",
            [PLAN + " --out plan.json",
             f"launch catalogue {CLUSTER} | sed 's/40000000000/400000000000/; s/80000000000/800000000000/' > roomy-cluster.json",
             "launch plan llama-7b.yaml --cluster roomy-cluster.json --constrain zero=0 --constrain tensor=1 --constrain pipeline=1"
             " --constrain data=2 --out roomy.json"]),
    Command("broken", EXPLAIN + " --against broken.json",
            [PLAN + " --out plan.json", "sed 's/\"first_block\": 0/\"first_block\": 1/' plan.json > broken.json"]),
    Command("calibrated", PLAN + " --calibrate run/metrics.jsonl"),
]


@dataclasses.dataclass
class Question:
    text: str
    command: str
    lines: list  # how the lines of the answer begin


QUESTIONS = [
    Question("How long is a step, and where does the time go?", "plan", ["step ", "  forward", "  backward", "  communication", "  bubble", "  optimizer"]),
    Question("Which cards do tensor parallelism, which stages do they run, and how many samples has each?", "plan", ["device class", "h100-sxm", "a100-40gb-sxm"]),
    Question("How full is each device, and of what?", "plan", ["stage ", "0 ", "1 ", "2 "]),
    Question("What binds?", "plan", ["binds:"]),
    Question("How far is this from the best possible?", "plan", ["no plan steps"]),
    Question("What was nearly as good?", "plan", ["runners-up", "RUNNER"]),
    Question("Why tensor parallelism, or why none?", "plan", ["  no tensor parallel", "  tensor parallel"]),
    Question("Why a pipeline, or why none?", "plan", ["  no pipeline parallel", "  pipeline parallel"]),
    Question("What if I forbid ZeRO?", "plan", ["  ZeRO 0"]),
    Question("Why this micro-batch?", "plan", ["  micro-batch of"]),
    Question("Why this schedule?", "plan", ["  schedule"]),
    Question("Why is nothing recomputed, or why is it?", "plan", ["  recompute of", "  no recompute"]),
    Question("What would 40 GB more buy?", "plan", ["  40 GB more"]),
    Question("What would more memory buy where it is short?", "tight", ["binds:", "  40 GB more", "  twice the memory"]),
    Question("What if the network were twice as fast?", "plan", ["  twice the bandwidth"]),
    Question("What would faster cards or another node buy?", "plan", ["  h100-sxm twice", "  a100-40gb-sxm twice", "  one more node"]),
    Question("What if I lose a card?", "plan", ["  one h100-sxm less", "  one a100-40gb-sxm less"]),
    Question("Do the old cards help at all?", "plan", ["  without "]),
    Question("Why is a card unused?", "unused", ["plan:", "t4 ", "  every device"]),
    Question("What does it cost?", "plan", ["costs"]),
    Question("What is the cheapest plan?", "cost", ["plan:", "costs", "no plan costs"]),
    Question("What is the cheapest plan that steps in a second?", "cost_limited", ["plan:", "step ", "costs"]),
    Question("Is there a plan that is as fast and as cheap as I want?", "cost_too_fast", ["error:", "  got:", "  fix:"]),
    Question("How do I give prices?", "cost_free", ["error:", "  fix:"]),
    Question("And with a price?", "priced", ["costs", "no plan costs"]),
    Question("Nothing fits: which of my constraints is to blame?", "conflict", ["error:", "  got:", "  fix:"]),
    Question("Nothing goes together: which of my constraints contradict each other?", "contradiction", ["error:", "  fix:"]),
    Question("Can a step take 0.1 s?", "too_fast", ["error:", "  got:", "  fix:"]),
    Question("Why not my layout?", "slower", ["why not that", "  - "]),
    Question("Why not my layout, which does not fit?", "misfit", ["why not that", "  - "]),
    Question("Why not my layout, which I wrote by hand?", "broken", ["why not that", "  - "]),
    Question("My run was slower than predicted: what then?", "calibrated", ["calibrated:", "step "]),
]
