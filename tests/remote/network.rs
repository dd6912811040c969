//! What a network may do between the program and a service: connections that are late, slow, silent, cut or reset, in
//! every phase of a build. Each scenario is held against its outcome and the number of requests, and against what the
//! proxy did: a trouble that did not happen proves nothing.

use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use windlass_tests::place::{Outcome, Place};
use windlass_tests::service::RuntimeApi;
use windlass_tests::service::image_builder::{self, Call, ImageBuilder};
use windlass_tests::service::runtime_api;
use windlass_tests::service::tcp_proxy::{Act, TcpProxy, Trouble, Way};
use windlass_tests::service::together::{self, Together};

use crate::bad_days::noise;
use crate::rig::{Rig, same};

/// What a build is sent with: enough that it cannot all be on its way.
const LARGE_BYTES: usize = 12 << 20;
/// Lines of a log, each of which must be shown once.
const LINES: usize = 40;

const LATE: Act = Act::Delay(Duration::from_millis(20));

/// Which service stands behind the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    RuntimeApi,
    ImageBuilder,
}

/// What happens, and what comes of it.
struct Scenario {
    name: &'static str,
    to: To,
    troubles: Vec<Trouble>,
    options: &'static [&'static str],
    /// The context holds a large file.
    large: bool,
    code: i32,
    says: &'static [&'static str],
    /// So many times the build was sent.
    sent: usize,
}

impl Scenario {
    /// A small context, no trouble, and a good end.
    fn new(to: To, name: &'static str) -> Self {
        Self { name, to, troubles: Vec::new(), options: &[], large: false, code: 0, says: &[], sent: 1 }
    }

    fn trouble(mut self, trouble: Trouble) -> Self {
        self.troubles.push(trouble);
        self
    }

    fn large(self) -> Self {
        Self { large: true, ..self }
    }

    fn options(self, options: &'static [&'static str]) -> Self {
        Self { options, ..self }
    }

    fn sent(self, sent: usize) -> Self {
        Self { sent, ..self }
    }

    fn says(self, says: &'static [&'static str]) -> Self {
        Self { says, ..self }
    }

    fn fails(self, code: i32, says: &'static [&'static str]) -> Self {
        Self { code, says, ..self }
    }
}

fn up(act: Act) -> Trouble {
    Trouble::new(Way::Up, act)
}

fn down(act: Act) -> Trouble {
    Trouble::new(Way::Down, act)
}

pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    let scenarios = [both(To::RuntimeApi), both(To::ImageBuilder), polling(), logs()];
    let of_table = scenarios.into_iter().flatten().map(|scenario| {
        let rig = rig.clone();
        let service = match scenario.to {
            To::RuntimeApi => "runtime_api",
            To::ImageBuilder => "image_builder",
        };
        Trial::test(format!("network::{service}::{}", scenario.name), move || check(&rig, &scenario))
    });
    of_table.chain(management(rig)).collect()
}

/// What may happen to any build while it is sent.
fn both(to: To) -> Vec<Scenario> {
    let scenario = |name| Scenario::new(to, name);
    // In the middle of the file, long before its end.
    let sent_as = "POST /build";
    let amid = |trouble: Trouble| trouble.after(sent_as).past(1 << 20);
    vec![
        scenario("everything_is_late").trouble(up(LATE).always()).trouble(down(LATE).always()),
        scenario("ended_while_uploading").large().trouble(amid(up(Act::Fin))).sent(2),
        scenario("reset_while_uploading").large().trouble(amid(up(Act::Reset))).sent(2),
        scenario("reset_while_uploading_whenever_it_is_tried")
            .large()
            .options(&["attempts=3"])
            .trouble(amid(up(Act::Reset)).always())
            .fails(3, &["attempts: 3"])
            .sent(3),
        scenario("nothing_moves_while_uploading")
            .large()
            .options(&["stall-timeout=1s", "attempts=2"])
            .trouble(amid(up(Act::Hold)).always())
            .fails(3, &["took nothing for 1 s", "attempts: 2"])
            .sent(2),
        scenario("a_slow_line_is_waited_for")
            .large()
            .options(&["stall-timeout=2s"])
            .trouble(up(Act::Limit(12 << 20)).after(sent_as)),
        scenario("ended_before_the_answer")
            .trouble(up(LATE).after(sent_as))
            .trouble(down(Act::Fin).after("HTTP/1.1 20"))
            .fails(1, &["may or may not have taken"]),
        scenario("reset_before_the_answer")
            .trouble(down(Act::Reset).after("HTTP/1.1 20"))
            .fails(1, &["may or may not have taken"]),
        scenario("ended_in_the_answer").trouble(down(Act::Fin).after("{\"build_id")).fails(1, &["was lost"]),
        scenario("reset_in_the_answer")
            .trouble(down(Act::Reset).after("{\"build_id"))
            .fails(1, &["was lost"]),
        scenario("no_answer")
            .options(&["answer-timeout=1s"])
            .trouble(down(Act::Hold))
            .fails(4, &["may or may not have taken", "did not answer for 1 s"]),
        scenario("an_answer_that_stops_in_the_middle")
            .options(&["call-timeout=300ms"])
            .trouble(down(Act::Hold).after("{\"build_id"))
            .fails(1, &["was lost"]),
        scenario("no_connection_lives")
            .large()
            .options(&["attempts=2"])
            .trouble(up(Act::Reset).always())
            .fails(3, &["attempts: 2"])
            .sent(0),
    ]
}

/// What may happen while the status of a build is asked for.
fn polling() -> Vec<Scenario> {
    let scenario = |name| Scenario::new(To::RuntimeApi, name);
    let amid = |act| down(act).after("{\"status\":\"RUN");
    let calls = "GET /build_status";
    vec![
        scenario("ended_in_a_status").trouble(amid(Act::Fin)).says(&["asking on"]),
        scenario("reset_in_a_status").trouble(amid(Act::Reset)).says(&["asking on"]),
        scenario("reset_in_many_a_status").trouble(amid(Act::Reset).times(8)).says(&["asking on"]),
        scenario("a_question_that_is_lost")
            .options(&["call-timeout=300ms"])
            .trouble(up(Act::Hold).after(calls))
            .says(&["did not answer for 0 s"]),
        scenario("a_status_that_stops_in_the_middle")
            .options(&["call-timeout=300ms"])
            .trouble(amid(Act::Hold)),
        scenario("a_status_byte_by_byte").trouble(down(Act::Limit(2_000)).after("{\"build_id")),
    ]
}

/// What may happen to a log while it is followed: no line is lost, and none is shown twice.
fn logs() -> Vec<Scenario> {
    let scenario = |name| Scenario::new(To::ImageBuilder, name);
    let between = "data: line 20\n\n\r\n";
    let within = "data: line 2";
    let status = "{\"image_ref\":";
    vec![
        scenario("ended_between_two_lines").trouble(down(Act::Fin).after(between)),
        scenario("reset_between_two_lines").trouble(down(Act::Reset).after(between)),
        scenario("ended_within_a_line").trouble(down(Act::Fin).after(within)),
        scenario("reset_within_a_line").trouble(down(Act::Reset).after(within)),
        scenario("reset_within_many_a_line").trouble(down(Act::Reset).after(within).times(4)),
        scenario("reset_before_the_first_line").trouble(down(Act::Reset).after("text/event-stream")),
        scenario("silent_between_two_lines")
            .options(&["log-stall-timeout=300ms"])
            .trouble(down(Act::Hold).after(between))
            .says(&["sent nothing for 0 s"]),
        scenario("silent_within_a_line")
            .options(&["log-stall-timeout=300ms"])
            .trouble(down(Act::Hold).after(within)),
        scenario("byte_by_byte").trouble(down(Act::Limit(4_000)).after("text/event-stream")),
        scenario("a_status_that_stops_in_the_middle")
            .options(&["call-timeout=300ms"])
            .trouble(down(Act::Hold).after(status)),
        scenario("ended_in_the_status").trouble(down(Act::Fin).after(status)),
        scenario("reset_in_the_status").trouble(down(Act::Reset).after(status)),
    ]
}

/// Builds through the proxy, and looks at what came of it.
fn check(rig: &Rig, scenario: &Scenario) -> Result<(), Failed> {
    let place = Place::new(rig.program())?;
    place.write("Dockerfile", "FROM scratch\nCOPY hello.txt /\n")?;
    place.write("hello.txt", "hello\n")?;
    if scenario.large {
        // Compression sees 32 KiB of it at a time.
        place.write("noise", noise(1 << 20).repeat(LARGE_BYTES >> 20))?;
    }
    let (proxy, outcome, sent) = match scenario.to {
        To::RuntimeApi => through_runtime_api(&place, scenario)?,
        To::ImageBuilder => through_image_builder(&place, scenario)?,
    };
    let missing: Vec<_> = scenario.says.iter().filter(|part| !outcome.stderr.contains(**part)).collect();
    if outcome.code != Some(scenario.code) || !missing.is_empty() {
        return Err(format!("expected code {} and {missing:?} in {outcome:#?}", scenario.code).into());
    }
    let idle = proxy.happened().iter().filter(|happened| **happened == 0).count();
    same("troubles that did not happen", idle, 0)?;
    same("uploads", sent, scenario.sent)?;
    for secret in [runtime_api::API_KEY, image_builder::API_KEY] {
        same("a secret is shown", outcome.stderr.contains(secret), false)?;
    }
    if scenario.code != 0 {
        return same("on standard output", outcome.stdout.as_str(), "");
    }
    same("image", outcome.line()?, image(scenario.to))?;
    if scenario.to == To::RuntimeApi {
        return Ok(());
    }
    let logged = outcome.stderr.lines().filter_map(|line| line.split_once(" line ")?.1.parse().ok());
    same("lines of the log", logged.collect::<Vec<usize>>(), (1..=LINES).collect())
}

fn image(to: To) -> &'static str {
    match to {
        To::RuntimeApi => "registry.example.com/team/agent:1",
        To::ImageBuilder => "registry.example.com/project/agent:1",
    }
}

/// The proxy, what the program said, and how often a build was sent.
type Seen = (TcpProxy, Outcome, usize);

fn through_runtime_api(place: &Place, scenario: &Scenario) -> Result<Seen, Failed> {
    let service = RuntimeApi::start(runtime_api::Habits::default())?;
    let proxy = TcpProxy::start(service.url(), &scenario.troubles)?;
    let url = proxy.url();
    let variables = [("RUNTIME_API_URL", url.as_str()), ("RUNTIME_API_KEY", runtime_api::API_KEY)];
    // Without a prefix to ask for, the first request of the first connection is the upload.
    let quick = ["poll-first=10ms", "poll-longest=20ms", "registry-prefix=none"];
    let line = line("runtime-api", image(To::RuntimeApi), &[&quick, scenario.options].concat());
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let outcome = place.run_with(&line, &variables)?;
    Ok((proxy, outcome, service.calls("build").len()))
}

fn through_image_builder(place: &Place, scenario: &Scenario) -> Result<Seen, Failed> {
    let habits = image_builder::Habits {
        builder: Box::new(|submission, _, log| {
            (1..=LINES).for_each(|number| log(&format!("line {number}")));
            Ok(format!("{}/{}", image_builder::REGISTRY, submission.image_name()))
        }),
        ..image_builder::Habits::default()
    };
    let service = ImageBuilder::start(habits)?;
    let proxy = TcpProxy::start(service.url(), &scenario.troubles)?;
    let url = proxy.url();
    let variables = [("TOGETHER_BASE_URL", url.as_str()), ("TOGETHER_API_KEY", image_builder::API_KEY)];
    let quick = ["reconnect-first-wait=10ms", "reconnect-longest-wait=20ms"];
    let line = line("image-builder", "agent:1", &[&quick, scenario.options].concat());
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let outcome = place.run_with(&line, &variables)?;
    Ok((proxy, outcome, service.calls(Call::Submit).len()))
}

/// What is typed: waits are short, and what never ends ends in a minute.
fn line(backend: &str, tag: &str, options: &[&str]) -> Vec<String> {
    let usual =
        ["retry-first-wait=10ms", "retry-longest-wait=50ms", "connect-timeout=5s", "build-timeout=60s"];
    let set = usual
        .iter()
        .chain(options)
        .flat_map(|option| ["--set".to_owned(), format!("backends.{backend}.{option}")]);
    ["build", "-t", tag].iter().map(|word| (*word).to_owned()).chain(set).collect()
}

/// Calls of the management API: what may be asked again is, and what may not is not.
fn management(rig: &Rig) -> Vec<Trial> {
    const ID: &str = "00000000-0000-4000-8000-000000000001";
    const LOST: &[&str] = &["127.0.0.1"];
    let list = &["list"][..];
    let retire = &["retire", ID][..];
    let cases = [
        ("everything_is_late", list, vec![up(LATE), down(LATE)], 0, 1),
        ("reset_before_the_answer", list, vec![down(Act::Reset)], 0, 2),
        ("ended_before_the_answer", list, vec![down(Act::Fin)], 0, 2),
        ("reset_in_the_answer", list, vec![down(Act::Reset).after("\r\n\r\n").past(5)], 0, 2),
        ("byte_by_byte", list, vec![down(Act::Limit(4_000))], 0, 1),
        ("what_was_sent_is_not_sent_again", retire, vec![down(Act::Reset).always()], 3, 1),
        ("nor_is_it_where_the_answer_ended", retire, vec![down(Act::Fin).always()], 3, 1),
    ];
    let trials = cases.into_iter().map(|(name, words, troubles, code, requests)| {
        let rig = rig.clone();
        Trial::test(format!("network::management::{name}"), move || {
            let service = Together::start(together::Habits { snapshots: 1, ..together::Habits::default() })?;
            let proxy = TcpProxy::start(service.url(), &troubles)?;
            let place = Place::new(rig.program())?;
            let set = ["--set", "backends.image-builder.retry-first-wait=10ms"];
            let url = proxy.url();
            let variables = [("TOGETHER_BASE_URL", url.as_str()), ("TOGETHER_API_KEY", together::API_KEY)];
            let outcome = place.run_with(&[&["snapshot"], words, &set].concat(), &variables)?;
            if code == 0 {
                outcome.good()?;
            } else {
                outcome.refused(code, LOST)?;
            }
            same("requests", service.lines().len(), requests)?;
            same("troubles that did not happen", proxy.happened().contains(&0), false)
        })
    });
    trials.collect()
}
