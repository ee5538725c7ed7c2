use super::*;
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::time::Instant;

struct Scene {
    output: Output,
    stdout: Option<File>,
    stderr: Option<File>,
}

fn scene(format: Format) -> Scene {
    let (out, out_writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (err, err_writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let output = Output::to(format, out_writer, err_writer);
    Scene { output, stdout: Some(out.into()), stderr: Some(err.into()) }
}

fn next_line(file: &mut BufReader<File>) -> String {
    let mut line = Vec::new();
    file.read_until(b'\n', &mut line).unwrap();
    String::from_utf8_lossy(&line).into_owned()
}

fn pipe() -> (OwnedFd, File) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    (reader, writer.into())
}

async fn bounded<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("within 10 s")
}

#[tokio::test]
async fn lines_carry_slot_and_pid() {
    let mut scene = scene(Format::Text);
    let worker = scene.output.worker(SlotId(3), 4711);
    let (reader, mut writer) = pipe();
    let (err_reader, mut err_writer) = pipe();
    worker.read(Stream::Stdout, reader).unwrap();
    worker.read(Stream::Stderr, err_reader).unwrap();
    writer.write_all(b"hello\nhalf").unwrap();
    err_writer.write_all(b"oh \xff no\n").unwrap();
    drop((writer, err_writer));
    bounded(worker.ended()).await;
    scene.output.finish(Duration::from_secs(5));
    let mut stdout = BufReader::new(scene.stdout.take().unwrap());
    assert_eq!(next_line(&mut stdout), "[3 4711] hello\n");
    assert_eq!(next_line(&mut stdout), "[3 4711] half\n");
    let mut stderr = BufReader::new(scene.stderr.take().unwrap());
    assert_eq!(next_line(&mut stderr), "[3 4711] oh \u{fffd} no\n");
    let mut tail = worker.tail();
    tail.sort();
    assert_eq!(tail, ["half", "hello", "oh \u{fffd} no"]);
    assert_eq!(scene.output.dropped(), 0);
}

#[tokio::test]
async fn json_is_one_object_per_line() {
    let mut scene = scene(Format::Json);
    let worker = scene.output.worker(SlotId(0), 7);
    worker.replay(Stream::Stderr, b"a \"quoted\" \x1b \xff line\n");
    worker.replay(Stream::Stderr, &vec![b'x'; 20_000]);
    scene.output.finish(Duration::from_secs(5));
    let mut stderr = BufReader::new(scene.stderr.take().unwrap());
    let first: serde_json::Value = serde_json::from_str(&next_line(&mut stderr)).unwrap();
    let expected = serde_json::json!({
        "slot": 0, "pid": 7, "stream": "stderr", "line": "a \"quoted\" \u{1b} \u{fffd} line"
    });
    assert_eq!(first, expected);
    let second: serde_json::Value = serde_json::from_str(&next_line(&mut stderr)).unwrap();
    assert_eq!(second["cut"], 20_000 - 16 * 1024);
}

#[tokio::test]
async fn a_blocked_output_blocks_nobody_and_every_line_is_accounted_for() {
    let mut scene = scene(Format::Text);
    let worker = scene.output.worker(SlotId(0), 1);
    let (reader, mut writer) = pipe();
    worker.read(Stream::Stdout, reader).unwrap();
    // Nobody reads our standard output, and still the worker gets rid of everything.
    let sent = 100_000;
    let talk = tokio::task::spawn_blocking(move || {
        for n in 0..sent {
            writeln!(writer, "line {n:09} of the worker").unwrap();
        }
    });
    bounded(talk).await.unwrap();
    bounded(worker.ended()).await;
    let dropped = scene.output.dropped();
    assert!(dropped > 0, "4 MB don't fit into the queue");

    let stdout = scene.stdout.take().unwrap();
    let read = std::thread::spawn(move || {
        for (arrived, line) in (0..).zip(BufReader::new(stdout).lines()) {
            let line = line.unwrap();
            if let Some(rest) = line.strip_prefix("relisten: ") {
                return (arrived, rest.split(' ').next().unwrap().parse::<u64>().unwrap());
            }
            assert_eq!(line, format!("[0 1] line {arrived:09} of the worker"));
        }
        panic!("nobody said how many lines were dropped");
    });
    let (arrived, said) = read.join().unwrap();
    assert_eq!(said, dropped);
    assert_eq!(arrived + dropped, sent);
}

#[tokio::test]
async fn who_hung_up_is_no_trouble() {
    let mut scene = scene(Format::Text);
    drop(scene.stdout.take());
    let worker = scene.output.worker(SlotId(0), 1);
    for n in 0..1000 {
        worker.replay(Stream::Stdout, format!("{n}\n").as_bytes());
    }
    scene.output.finish(Duration::from_secs(5));
    assert_eq!(scene.output.dropped(), 1000);
    worker.replay(Stream::Stderr, b"still here\n");
    let mut stderr = BufReader::new(scene.stderr.take().unwrap());
    assert_eq!(next_line(&mut stderr), "[0 1] still here\n");
}

#[tokio::test]
async fn the_end_waits_no_longer_than_it_may() {
    let scene = scene(Format::Text);
    let worker = scene.output.worker(SlotId(0), 1);
    for _ in 0..10_000 {
        worker.replay(Stream::Stdout, b"a line that nobody reads\n");
    }
    let begun = Instant::now();
    scene.output.finish(Duration::from_millis(100));
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(scene.output.dropped() > 0);
}

#[tokio::test]
async fn a_talkative_worker_leaves_time_for_others() {
    let mut scene = scene(Format::Text);
    let mut stdout = scene.stdout.take().unwrap();
    std::thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
    let worker = scene.output.worker(SlotId(0), 1);
    let (reader, mut writer) = pipe();
    worker.read(Stream::Stdout, reader).unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let talk = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let text = b"x\n".repeat(30_000);
            let mut sent = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                writer.write_all(&text).unwrap();
                sent += text.len() as u64;
            }
            sent
        }
    });
    let mut waits = Vec::new();
    let end = Instant::now() + Duration::from_secs(10);
    while waits.len() < 50 && Instant::now() < end {
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_millis(1)).await;
        waits.push(begun.elapsed());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    // Let it read on, so that the thread comes to its end.
    let sent = bounded(tokio::task::spawn_blocking(move || talk.join().unwrap())).await.unwrap();
    waits.sort();
    let median = waits[waits.len() / 2];
    assert!(sent > 0 && median < Duration::from_millis(50), "{sent} bytes sent, turn of others: {median:?}");
}

#[tokio::test]
async fn log_lines_take_the_same_way() {
    let mut scene = scene(Format::Text);
    scene.output.log().write_all(b"a log line\n").unwrap();
    scene.output.finish(Duration::from_secs(5));
    drop(scene.output);
    let mut text = [0; 11];
    scene.stderr.take().unwrap().read_exact(&mut text).unwrap();
    assert_eq!(&text, b"a log line\n");
}
