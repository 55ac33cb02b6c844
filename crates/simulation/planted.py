#!/usr/bin/env python3
"""Tests the rig: plants one bug after the other in a copy of the function, and
sees the rig find each.

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
        "src/sitewise.rs",
        "            .errors()\n            .iter()\n            .map(",
        "            .errors()\n            .iter()\n            .take(0)\n            .map(",
    ),
    (
        "a lost reply counts as done",
        "src/sitewise.rs",
        """            .await
            .map_err(|error| CallFailure::of(&error))?;
""",
        """            .await
            .map_err(|error| CallFailure::of(&error));
        let output = match output {
            Err(lost) if lost.failure.code() == code::CONNECTION_FAILED => return Ok(Vec::new()),
            other => other?,
        };
""",
    ),
    (
        "acknowledged before the letter is stored",
        "src/handler.rs",
        "                Err(failure) => {\n                    rest.failure",
        "                Err(failure) => {\n                    rest.is_kept = true;\n                    rest.failure",
    ),
    (
        "entries that fail inside a SendMessageBatch's 200 are ignored",
        "src/queue.rs",
        "output.successful().iter().map(|entry| entry.id()).collect();",
        "output.successful().iter().map(|entry| entry.id())"
        ".chain(output.failed().iter().map(|entry| entry.id())).collect();",
    ),
    (
        "a random token",
        "src/plan.rs",
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
        "src/plan.rs",
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
        "            told[owner.request].extend(share.map(|place| results[usize::from(*place)].clone()));",
        "            told[owner.request].extend(share.map(|_| results[results.len() - 1].clone()));",
    ),
    (
        "a refused batch is rejected whole",
        "src/dispatch.rs",
        "        if let [place] = subset.places[..] {\n            self.refused_alone(place, failure);\n            return;",
        "        if !subset.places.is_empty() {\n"
        "            self.conclude(&subset.places, &Outcome::Rejected(failure));\n            return;",
    ),
    (
        "a project is presumed missing though it exists",
        "src/dispatch.rs",
        "        !self.exists\n            && (self.project_named",
        "        (self.project_named",
    ),
    (
        "a batch of 101",
        "src/plan.rs",
        "pub const BATCH_LIMIT: usize = 100;",
        "pub const BATCH_LIMIT: usize = 101;",
    ),
    (
        "a 429 is taken for a refusal",
        "src/sdk_error.rs",
        "        429 => FailureClass::Throttled,\n",
        "        429 => FailureClass::Refused,\n",
    ),
    (
        "an expired credential is taken for a refusal",
        "src/sdk_error.rs",
        "        return FailureClass::Denied;\n",
        "        return FailureClass::Refused;\n",
    ),
    (
        "a record with unfinished assets is acknowledged",
        "src/settle.rs",
        "        self.rest.iter().any(|rest| !rest.is_kept)\n",
        "        self.rest.iter().any(|rest| !rest.is_kept && !rest.retryable)\n",
    ),
    (
        "the order of FIFO groups is lost",
        "src/settle.rs",
        "*stays || is_behind",
        "*stays",
    ),
    (
        "the deadline is ignored",
        "src/handler.rs",
        "            stop_calls: before((left / 5).clamp(LEAST_RESERVE, RESERVE)),",
        "            stop_calls: deadline + RESERVE,",
    ),
    (
        "a letter forgets its last asset",
        "src/dead_letter.rs",
        "            asset_ids: assets.iter()",
        "            asset_ids: assets[..assets.len().saturating_sub(1)].iter()",
    ),
    (
        "a part forgets its last asset",
        "src/part.rs",
        "    assets\n        .chunks(size)",
        "    assets[..assets.len().saturating_sub(1)]\n        .chunks(size)",
    ),
    (
        "a panic counts as done",
        "src/dispatch.rs",
        """                Ok(Err(_panic)) => {
                    return Err(Missed::Failed(CallFailure::new(
                        FailureClass::Unexpected,
                        panic_failure(),
                    )));
                }
""",
        "                Ok(Err(_panic)) => return Ok(Vec::new()),\n",
    ),
    (
        "a throttled call counts as done",
        "src/dispatch.rs",
        "                    throttled = Some(failure);\n",
        "                    return Ok(Vec::new());\n",
    ),
    (
        "no call waits for its turn",
        "src/dispatch.rs",
        "            let start = self.pace().next_start(now);\n",
        "            let start = self.pace().next_start(now).min(now);\n",
    ),
    (
        "assets that wait to be tried alone are forgotten",
        "src/dispatch.rs",
        "            self.go_on(job.batch, vec![rest]);\n",
        "            let _ = rest;\n",
    ),
    (
        "once most are refused, all are taken for refused",
        "src/dispatch.rs",
        "        self.reject_presumed(&mut subset.places);\n        if subset.places.is_empty() {\n"
        "            return;\n        }\n        if subset.round > 0 {",
        "        if self.calls.state().is_mostly_refused(self.index) {\n"
        "            let refused = Outcome::Rejected(panic_failure());\n"
        "            return self.conclude(&subset.places, &refused);\n        }\n"
        "        if subset.round > 0 {",
    ),
    (
        "where nothing is answered nobody is tried alone",
        "src/dispatch.rs",
        "    let mut may_sound = true;\n",
        "    let mut may_sound = false;\n",
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
        rig = run(BUILD / "debug" / "simulation", "--seeds", str(SEEDS), "--stop")
        found = [line for line in rig.stdout.splitlines() if line.startswith("seed ")]
        if rig.returncode and found:
            runs = rig.stdout.splitlines()[-1].split()[0]
            print(f"found   {name}, after {runs} seed(s): {found[0]}", flush=True)
        else:
            print(f"MISSED  {name}", flush=True)
            survivors.append(name)
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
