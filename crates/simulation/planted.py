#!/usr/bin/env python3
"""Tests the simulation: plants one bug after the other in a copy of the function, and
sees the simulation find each.

    python3 crates/simulation/planted.py [NAME …]

A bug that is not found, or whose place in the source is not, is a failure.
"""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
COPY = TARGET / "planted" / "source"
# Never where the function itself is built: Cargo takes the copy's crates for the
# workspace's own.
BUILD = TARGET / "planted" / "build"
SEEDS = 1000

# Name, file, what stands there, what is put in its place.
BUGS = [
    (
        "failures inside a 200 are ignored",
        "src/aws/sitewise.rs",
        "            .errors()\n            .iter()\n            .map(",
        "            .errors()\n            .iter()\n            .take(0)\n            .map(",
    ),
    (
        "a lost reply counts as done",
        "src/dispatch/requests.rs",
        "        self.request(RequestKind::Call, call).await\n",
        """        match self.request(RequestKind::Call, call).await {
            Err(lost) if lost.failure.code() == code::CONNECTION_FAILED => Ok(Vec::new()),
            other => other,
        }
""",
    ),
    (
        "acknowledged before the dead letter is stored",
        "src/output/outbox.rs",
        "                Err(failure) => {\n                    one.failure",
        "                Err(failure) => {\n                    one.is_stored = true;\n                    one.failure",
    ),
    (
        "entries that fail inside a SendMessageBatch's 200 are ignored",
        "src/aws/sqs.rs",
        "output.successful().iter().map(|entry| entry.id()).collect();",
        "output.successful().iter().map(|entry| entry.id())"
        ".chain(output.failed().iter().map(|entry| entry.id())).collect();",
    ),
    (
        "a random token",
        "src/token.rs",
        "        self.number(round as usize);\n",
        """        static CALLS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        self.number(CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        self.number(round as usize);
""",
    ),
    (
        "a token of the content only",
        "src/plan.rs",
        "        messages.sort_unstable();\n",
        "        messages.clear();\n",
    ),
    (
        "a token without the round",
        "src/token.rs",
        "        self.number(round as usize);\n",
        "        let _ = round;\n",
    ),
    (
        "a request's own token for each of its batches",
        "src/plan.rs",
        "            if own.is_whole_request && round == 0 && assets.len() == self.assets.len() {",
        "            if round == 0 {",
    ),
    (
        "an error in a shared batch is blamed on its neighbours",
        "src/plan.rs",
        "            let results = positions.map(|position| results[usize::from(*position)].clone());\n",
        "            let results = positions.map(|_| results[results.len() - 1].clone());\n",
    ),
    (
        "a refused batch is rejected whole",
        "src/dispatch/state.rs",
        "            _ if are_all_listed => again.split(&self.batches[again.batch], REFUSED_PARTS),\n",
        "            _ if are_all_listed => self.next_round(Attempt {\n"
        "                round: ASSET_ROUNDS,\n                ..again\n            }),\n",
    ),
    (
        "membership is not read: what is refused is rejected at once",
        "src/dispatch/state.rs",
        "            self.refusals.entry(project).or_default().push(refusal);\n",
        "            let round = ASSET_ROUNDS;\n"
        "            self.next_round(Attempt { round, ..refusal.attempt });\n",
    ),
    (
        "a read decides what came after its first page was asked for",
        "src/dispatch/mod.rs",
        "        if refusals.borrow().is_empty() {\n",
        "        {\n",
    ),
    (
        "a listed asset counts as absent",
        "src/dispatch/state.rs",
        "attempt.positions.iter().copied().partition(is_listed);",
        "attempt.positions.iter().copied().partition(|place| *place > 0 && is_listed(place));",
    ),
    (
        "only the first page of a list is read",
        "src/dispatch/requests.rs",
        "                next = page.next;\n",
        "                next = page.next.filter(|_| false);\n",
    ),
    (
        "an empty list counts as a missing project",
        "src/dispatch/requests.rs",
        "        if listed.is_empty() {\n            self.describe(project).await?;\n",
        """        if listed.is_empty() {
            return Err(CallFailure::new(
                FailureClass::Refused,
                Failure::new("ResourceNotFoundException", "the list is empty"),
            ));
""",
    ),
    (
        "a missing project's assets count as absent",
        "src/dispatch/state.rs",
        "            let outcome = Outcome::Rejected(failure.clone());\n",
        "            let _ = failure;\n            let outcome = Outcome::Absent;\n",
    ),
    (
        "a 200 with an error type counts as done",
        "src/aws/sitewise.rs",
        "            .interceptor(CheckSuccess { required: None })\n",
        "",
    ),
    (
        "a shared call that fails is never split",
        "src/dispatch/mod.rs",
        "FailureClass::Unexpected if attempt.is_shared(batch) => {",
        "FailureClass::Unexpected if attempt.is_shared(batch) && false => {",
    ),
    (
        "a shared call that fails is split though nothing is answered",
        "src/dispatch/state.rs",
        "        if self.answers > attempt.answers_before {\n",
        "        if self.answers >= attempt.answers_before {\n",
    ),
    (
        "where nothing is answered no part of a batch is tried",
        "src/dispatch/state.rs",
        "            if !attempt.is_whole || receives < 2 {\n",
        "            if !attempt.is_whole || receives < usize::MAX {\n",
    ),
    (
        "the last part of a split is forgotten",
        "src/dispatch/attempt.rs",
        "        parts.into_iter().map(|part| self.part(part)).collect()\n",
        "        let kept = parts.len().max(2) - 1;\n"
        "        parts.into_iter().take(kept).map(|part| self.part(part)).collect()\n",
    ),
    (
        "an asset has four times as many rounds",
        "src/dispatch/state.rs",
        "        if round < ASSET_ROUNDS {\n",
        "        if round < 4 * ASSET_ROUNDS {\n",
    ),
    (
        "parts are sent though a dead letter was not stored",
        "src/output/outbox.rs",
        "        settlements.iter_mut().for_each(Settlement::hold_back_parts);\n",
        "",
    ),
    (
        "a batch of 101",
        "src/plan.rs",
        "pub const BATCH_LIMIT: usize = 100;",
        "pub const BATCH_LIMIT: usize = 101;",
    ),
    (
        "a 429 is taken for a refusal",
        "src/aws/error.rs",
        "        429 => FailureClass::Throttled,\n",
        "        429 => FailureClass::Refused,\n",
    ),
    (
        "an expired credential is taken for a refusal",
        "src/aws/error.rs",
        "        return FailureClass::Denied;\n",
        "        return FailureClass::Refused;\n",
    ),
    (
        "a record with unfinished assets is acknowledged",
        "src/settle/mod.rs",
        "        self.unresolved.iter().any(|one| !one.is_stored)\n",
        "        self.unresolved.iter().any(|one| !one.is_stored && !one.retryable)\n",
    ),
    (
        "the order of FIFO groups is lost",
        "src/settle/fifo.rs",
        "is_behind || settlement.must_be_kept()",
        "is_behind && false || settlement.must_be_kept()",
    ),
    (
        "the deadline is ignored",
        "src/deadline.rs",
        "            requests: before((left / 5).clamp(LEAST_RESERVE, RESERVE)),",
        "            requests: deadline + RESERVE + left,",
    ),
    (
        "a letter forgets its last asset",
        "src/output/dead_letter.rs",
        "            asset_ids: assets.iter()",
        "            asset_ids: assets[..assets.len().saturating_sub(1)].iter()",
    ),
    (
        "a part forgets its last asset",
        "src/output/part.rs",
        "    assets\n        .chunks(size)",
        "    assets[..assets.len().saturating_sub(1)]\n        .chunks(size)",
    ),
    (
        "a panic counts as done",
        "src/dispatch/requests.rs",
        "        self.request(RequestKind::Call, call).await\n",
        """        match self.request(RequestKind::Call, call).await {
            Err(panic) if panic.failure.code() == code::INTERNAL_ERROR => Ok(Vec::new()),
            other => other,
        }
""",
    ),
    (
        "a throttled call counts as done",
        "src/dispatch/requests.rs",
        "        self.request(RequestKind::Call, call).await\n",
        """        match self.request(RequestKind::Call, call).await {
            Err(error) if error.class == FailureClass::Throttled => Ok(Vec::new()),
            other => other,
        }
""",
    ),
    (
        "no call waits for its turn",
        "src/dispatch/requests.rs",
        "            let start = self.rate_limiter().next_start(now);\n",
        "            let start = self.rate_limiter().next_start(now).min(now);\n",
    ),
]


def copy_source():
    shutil.rmtree(COPY, ignore_errors=True)
    leave_out = shutil.ignore_patterns("target", ".*", "__pycache__")
    shutil.copytree(ROOT, COPY, ignore=leave_out)


def run(*command):
    environment = {**os.environ, "CARGO_TARGET_DIR": str(BUILD), "RUST_BACKTRACE": "0"}
    return subprocess.run(command, cwd=COPY, env=environment, capture_output=True, text=True)


def main():
    names = sys.argv[1:]
    survivors = []
    for name, file, old, new in BUGS:
        if names and name not in names:
            continue
        copy_source()
        path = COPY / file
        source = path.read_text()
        if source.count(old) != 1:
            sys.exit(f"{name}: its place in {file} is there {source.count(old)} times, not once")
        path.write_text(source.replace(old, new))
        build = run("cargo", "build", "--quiet", "--locked", "--package", "simulation")
        if build.returncode:
            sys.exit(f"{name}: does not compile\n{build.stderr}")
        simulation = run(BUILD / "debug" / "simulation", "--seeds", str(SEEDS), "--stop")
        found = [line for line in simulation.stdout.splitlines() if line.startswith("seed ")]
        if simulation.returncode and found:
            runs = simulation.stdout.splitlines()[-1].split()[0]
            print(f"found   {name}, after {runs} seed(s): {found[0]}", flush=True)
        else:
            print(f"MISSED  {name}", flush=True)
            survivors.append(name)
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
