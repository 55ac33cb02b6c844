//! The program: what its arguments make, and what it prints.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use simulator::{Settings, Simulator};

use crate::socket::ask;
use crate::support::{Harness, asset, assets, project};

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
    let harness = Harness::over_socket(&Simulator::new(Settings::default()), url);
    assert_eq!(harness.disassociate([1]).await, Ok(vec![]));
    harness.disassociate([2]).await.expect_err("reset");
    harness.send(&queue, "body").await.expect("sent");
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

#[tokio::test]
async fn its_lists_are_as_its_arguments_say() {
    let hour = "3600000";
    let mut program = Program::start(&[
        "--project",
        &format!("{}={},{}", project(1), asset(1), asset(2)),
        "--descendants",
        &format!("{}={}", asset(2), asset(5)),
        "--lists-descendants",
        "--removed-stay-listed-ms",
        hour,
        "--added-not-listed-ms",
        hour,
        "--missing-list",
        "empty",
    ]);
    let first = program.line();
    let url = first.strip_prefix("listening on ").expect(&first);
    program.line();
    let harness = Harness::over_socket(&Simulator::new(Settings::default()), url);
    let listed = async || harness.list(None, None).await.expect("a page").asset_ids;
    assert_eq!(listed().await, assets([1, 2, 5]));
    harness.disassociate([1]).await.expect("a 200");
    let added = serde_json::json!({"projectId": project(1), "assetIds": assets([3])});
    let addr = url.strip_prefix("http://").expect(url);
    let addr = addr.parse().expect("an address");
    let done = ask(addr, "POST", "/_simulator/projects", &added.to_string()).await;
    assert!(done.starts_with("HTTP/1.1 200 "), "{done}");
    assert_eq!(listed().await, assets([1, 2, 5]));

    let missing = harness
        .sitewise
        .list_project_assets()
        .project_id(project(2));
    let page = missing.send().await.expect("a page");
    assert_eq!(page.asset_ids(), assets([]));
    harness.describe().await.expect("a project");
    let of_project = |number| format!("project {} → 200", project(number));
    for end in [
        format!("ListProjectAssets {}", of_project(1)),
        format!("Disassociate project {}, 1 asset(s) → 200", project(1)),
        format!("ListProjectAssets {}", of_project(1)),
        format!("ListProjectAssets {}", of_project(2)),
        format!("DescribeProject {}", of_project(1)),
    ] {
        let line = program.line();
        assert!(line.ends_with(&end), "{line}");
    }
}

#[test]
fn its_help_tells_the_targets_of_faults_and_how_lists_may_be() {
    let output = Command::new(env!("CARGO_BIN_EXE_simulator"))
        .arg("--help")
        .output()
        .expect("the program");
    let help = String::from_utf8(output.stdout).expect("a text");
    for part in [
        "disassociate, list, describe, list-projects, describe-portal, reads, sitewise and sqs",
        "--portal",
        "--missing-list",
        "- not-found: 404 `ResourceNotFoundException`",
        "--removed-stay-listed-ms",
        "--added-not-listed-ms",
        "--lists-descendants",
        "--descendants",
    ] {
        assert!(help.contains(part), "{part}: {help}");
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
        (
            ["--descendants", "x"],
            "expected ID=ASSET,ASSET or ID=@FILE",
        ),
        (
            ["--missing-list", "x"],
            "[possible values: not-found, invalid, empty]",
        ),
        (
            ["--tokens", "x"],
            "[possible values: ignored, successes, all]",
        ),
    ] {
        let found = complaint(&arguments);
        assert!(found.contains(part), "{found}");
    }
}
