use super::*;
use crate::cli::Sort;
use crate::render::Paint;
use crate::top::live::pressed;
use crate::top::text;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use relisten_diag::machine::Missing;
use relisten_diag::top::{Accepts, InstanceLine, Reset, TopGroup, TopListener, TopWorker, Totals};

fn worker(pid: u32, active: u64, share: f64, state: Option<&str>) -> TopWorker {
    TopWorker {
        pid,
        program: "node".into(),
        command: "node server.js".into(),
        container: None,
        generation: state.map(|_| 2),
        state: state.map(Into::into),
        active: Some(active),
        share: Some(share),
        fair_share: Some(0.5),
    }
}

fn listener(inode: u64, slot: Option<u32>, state: &str, queue: u64, workers: Vec<TopWorker>) -> TopListener {
    TopListener {
        inode,
        slot,
        state: state.into(),
        weight: slot.map(|_| 1),
        queue,
        limit: 511,
        drops: Some(queue / 100),
        drops_per_s: Some(0.0),
        accepted_total: None,
        accepted_per_s: slot.map(|_| 7.0),
        rescued_total: None,
        workers,
    }
}

fn group(port: u16, listeners: Vec<TopListener>) -> TopGroup {
    TopGroup {
        protocol: "tcp".into(),
        address: ([0, 0, 0, 0], port).into(),
        instance: None,
        queue: listeners.iter().map(|listener| listener.queue).sum(),
        limit: listeners.iter().map(|listener| listener.limit).sum(),
        oldest_ms: Some(u64::from(port) / 5),
        active: Some(u64::from(port)),
        half_open: Some(0),
        time_wait: Some(0),
        accepted: Some(Accepts { at_least_per_s: 1234.5, at_most_per_s: Some(1240.0), exact: false }),
        drops: Some(0),
        drops_per_s: Some(0.0),
        listeners,
    }
}

fn example() -> Top {
    let web = vec![
        listener(100, Some(0), "serving", 0, vec![worker(1000, 75, 0.75, Some("ready"))]),
        listener(101, Some(1), "hung", 300, vec![worker(1001, 25, 0.25, Some("hung"))]),
    ];
    let mut web = group(8080, web);
    web.instance = Some(InstanceLine {
        name: "web".into(),
        generation: 2,
        state: "running".into(),
        policy: "hash".into(),
        backend: "cbpf".into(),
    });
    let plain = group(9000, vec![listener(200, None, "serving", 2, vec![worker(2000, 12_345, 1.0, None)])]);
    let mut pair = group(
        80,
        vec![
            listener(300, None, "serving", 0, Vec::new()),
            listener(301, None, "full", 512, vec![worker(3001, 1, 1.0, None)]),
        ],
    );
    (pair.drops, pair.drops_per_s) = (Some(17), Some(3.0));
    let mut udp = group(53, vec![listener(400, None, "serving", 0, vec![])]);
    (udp.protocol, udp.active, udp.accepted) = ("udp".into(), None, None);
    Top {
        kernel: "6.12.0".into(),
        namespace: 4_026_531_840,
        interval_ms: 1000,
        totals: Totals {
            sockets: 25_000,
            established: 24_000,
            half_open: 3,
            time_wait_in: 900,
            time_wait_out: 97,
            opened_in_per_s: Some(1240.0),
            opened_out_per_s: Some(3.0),
            overflows_per_s: Some(0.5),
            drops_per_s: None,
            resets: vec![Reset {
                cause: "unread-data".into(),
                meaning: "closed while data was unread".into(),
                total: 9,
                per_s: 2.0,
            }],
        },
        groups: vec![web, plain, pair, udp],
        missing: vec![Missing {
            what: "processes".into(),
            why: "17 can't be looked into".into(),
            effect: "who holds their sockets is not known".into(),
        }],
    }
}

fn screen() -> Screen {
    let view = View { workers: true, udp: true, ..View::default() };
    Screen { view, top: Some(example()), ..Screen::default() }
}

fn drawn(screen: &mut Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, screen)).unwrap();
    terminal.backend().to_string()
}

fn press(screen: &mut Screen, keys: &str) {
    for key in keys.chars() {
        let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
        assert!(!pressed(screen, KeyEvent::new(code, KeyModifiers::NONE)), "{key} ends it");
    }
}

#[test]
fn eighty_by_twenty_four() {
    insta::assert_snapshot!(drawn(&mut screen(), 80, 24));
}

#[test]
fn wide() {
    insta::assert_snapshot!(drawn(&mut screen(), 120, 20));
}

#[test]
fn help_sort_filter_pause() {
    let mut screen = screen();
    press(&mut screen, "h");
    insta::assert_snapshot!("help", drawn(&mut screen, 80, 24));
    press(&mut screen, "xsrp/web\n");
    assert_eq!((screen.view.sort, screen.view.reversed, screen.paused), (Sort::Queue, true, true));
    insta::assert_snapshot!("filtered", drawn(&mut screen, 80, 12));
    press(&mut screen, "/");
    assert!(drawn(&mut screen, 80, 12).contains("filter: web_"));
    assert!(!pressed(&mut screen, KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE)));
    assert_eq!(screen.view.filter, "");
    assert!(pressed(&mut screen, KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)));
}

#[test]
fn a_screen_too_small_for_all_lines_scrolls() {
    let mut screen = screen();
    let first = drawn(&mut screen, 80, 8);
    assert!(first.contains("lines 1-4 of "), "{first}");
    assert!(!pressed(&mut screen, KeyEvent::new(KeyCode::End, KeyModifiers::NONE)));
    let last = drawn(&mut screen, 80, 8);
    assert!(last.contains("tcp 0.0.0.0:9000") || last.contains("udp"), "{last}");
    for (width, height) in [(1, 1), (3, 2), (80, 2), (10, 40)] {
        drawn(&mut screen, width, height);
    }
}

/// What is wrong stands out with and without colours.
#[test]
fn without_colours_nothing_is_coloured() {
    for colours in [false, true] {
        let mut screen = Screen { colours, ..screen() };
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &mut screen)).unwrap();
        let cells = &terminal.backend().buffer().content;
        assert_eq!(cells.iter().any(|cell| cell.fg != Color::Reset), colours);
        assert!(cells.iter().all(|cell| cell.bg == Color::Reset));
    }
}

#[test]
fn as_text() {
    let view = View { workers: true, udp: true, sort: Sort::Active, ..View::default() };
    let time = Some("2026-01-01T00:00:00Z");
    insta::assert_snapshot!(text::render(&view, &example(), time, Paint::plain()));
    let only = View { instance: Some("web".into()), ..view };
    let chosen = only.chosen(&example());
    assert_eq!(chosen.groups.len(), 1);
}
