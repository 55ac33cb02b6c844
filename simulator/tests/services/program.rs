//! The program: what its arguments make, and what it prints.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use simulator::{Settings, Simulator};

use crate::support::{Rig, asset, project};

/// The program while it runs; it ends with the test.
struct Program {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_simulator"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program");
        let output = process.stdout.take().expect("a pipe");
        Self {
            process,
            lines: BufReader::new(output).lines(),
        }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("a text")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ended");
    }
}

/// What the program says before it ends by itself.
fn complaint(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_simulator"))
        .args(["--listen", "127.0.0.1:0"])
        .args(arguments)
        .output()
        .expect("the program");
    assert!(!output.status.success());
    String::from_utf8(output.stderr).expect("a text")
}

#[tokio::test]
async fn it_serves_what_its_arguments_name_and_prints_each_call_once_it_is_over() {
    let file = std::env::temp_dir().join(format!("simulator-assets-{}", std::process::id()));
    std::fs::write(&file, format!("{}\n\n {} \n", asset(1), asset(2))).expect("a file");
    let mut program = Program::start(&[
        "--project",
        &format!("{}=@{}", project(1), file.display()),
        "--project",
        &format!("{}={},{}", project(2), asset(3), asset(4)),
        "--queue",
        "dead-letters",
        "--latency-ms",
        "100",
        "--fault",
        "disassociate:nth=2:reset",
    ]);
    let first = program.line();
    std::fs::remove_file(&file).expect("a file");
    let url = first.strip_prefix("listening on ").expect(&first);
    assert_eq!(
        program.line(),
        format!("project {}: 2 asset(s)", project(1))
    );
    assert_eq!(
        program.line(),
        format!("project {}: 2 asset(s)", project(2))
    );
    let queue = format!("{url}/000000000000/dead-letters");
    assert_eq!(program.line(), format!("queue {queue}"));

    // Only its clients are of use here: the program has a simulator of its own.
    let rig = Rig::over_socket(&Simulator::new(Settings::default()), url);
    assert_eq!(rig.disassociate([1]).await, Ok(vec![]));
    rig.disassociate([2]).await.expect_err("reset");
    rig.send(&queue, "body").await.expect("sent");
    for end in [
        format!("Disassociate project {}, 1 asset(s) → 200", project(1)),
        format!(
            "Disassociate project {}, 1 asset(s) → no answer",
            project(1)
        ),
        "SendMessage queue dead-letters, 1 message(s) → 200".to_owned(),
    ] {
        let line = program.line();
        assert!(line.ends_with(&end), "{line}");
    }
}

#[test]
fn arguments_that_it_cannot_use_are_named() {
    for (arguments, part) in [
        (["--project", "x"], "expected ID=ASSET,ASSET or ID=@FILE"),
        (["--project", "x=@no-such-file"], "no-such-file: "),
        (["--event", "no-such-file"], "no-such-file: "),
        (["--throttle", "0"], "expected RATE or RATE:BURST"),
        (["--fault", "list:explode"], "expected project=ID"),
    ] {
        let found = complaint(&arguments);
        assert!(found.contains(part), "{found}");
    }
}
