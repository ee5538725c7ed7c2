//! Files, ranges, conditions, listings, and what is not served.

use super::{Running, age, read_reply};
use std::io::Write;
use std::os::unix::fs::symlink;

#[test]
fn a_file() {
    let worker = Running::start();
    worker.file("a b.txt", "hello\n");
    let reply = worker.get("/a%20b.txt?x=1");
    assert_eq!((reply.status, reply.text()), (200, "hello\n"));
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(reply.header("content-length"), Some("6"));
    assert_eq!(reply.header("accept-ranges"), Some("bytes"));
    assert!(reply.header("date").is_some() && reply.header("last-modified").is_some());
}

#[test]
fn content_types() {
    let worker = Running::start();
    for (name, expected) in [
        ("x.html", "text/html; charset=utf-8"),
        ("x.css", "text/css; charset=utf-8"),
        ("x.PNG", "image/png"),
        ("x.json", "application/json"),
        ("x.unheard-of", "application/octet-stream"),
        ("x", "application/octet-stream"),
        ("html", "application/octet-stream"),
    ] {
        worker.file(name, "x");
        assert_eq!(worker.get(&format!("/{name}")).header("content-type"), Some(expected), "{name}");
    }
}

#[test]
fn head_tells_what_get_would() {
    let worker = Running::start();
    worker.file("f.txt", "hello");
    let (get, head) = (worker.get("/f.txt"), worker.ask("HEAD", "/f.txt", ""));
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, Some("5")));
    assert_eq!(
        get.header("etag").map(|tag| tag.trim_start_matches("W/")),
        head.header("etag").map(|tag| tag.trim_start_matches("W/"))
    );
    let missing = worker.ask("HEAD", "/none", "");
    assert_eq!((missing.status, missing.body.len()), (404, 0));
}

#[test]
fn a_large_file_comes_whole() {
    let worker = Running::start();
    let content: Vec<u8> =
        (0..1_000_003_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    worker.file("large", &content);
    let reply = worker.get("/large");
    assert_eq!(reply.header("content-length"), Some("1000003"));
    assert!(reply.body == content, "the content differs");
    let part = worker.ask("GET", "/large", "Range: bytes=100000-999999\r\n");
    assert!(part.status == 206 && part.body == content[100_000..1_000_000]);
}

#[test]
fn an_empty_file() {
    let worker = Running::start();
    worker.file("empty", "");
    let reply = worker.get("/empty");
    assert_eq!((reply.status, reply.header("content-length"), reply.body.len()), (200, Some("0"), 0));
}

#[test]
fn ranges() {
    let worker = Running::start();
    worker.file("f", "0123456789");
    for (range, status, content_range, body) in [
        ("bytes=2-4", 206, Some("bytes 2-4/10"), "234"),
        ("bytes=7-", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=-2", 206, Some("bytes 8-9/10"), "89"),
        ("bytes=0-1,5-6", 200, None, "0123456789"),
        ("nonsense", 200, None, "0123456789"),
    ] {
        let reply = worker.ask("GET", "/f", &format!("Range: {range}\r\n"));
        assert_eq!(
            (reply.status, reply.header("content-range"), reply.text()),
            (status, content_range, body),
            "{range}"
        );
    }
    let reply = worker.ask("GET", "/f", "Range: bytes=10-\r\n");
    assert_eq!((reply.status, reply.header("content-range")), (416, Some("bytes */10")));
    let head = worker.ask("HEAD", "/f", "Range: bytes=2-4\r\n");
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
}

#[test]
fn ranges_of_the_version_that_the_client_has() {
    let worker = Running::start();
    worker.file("f", "0123456789");
    age(&worker.root().join("f"));
    let known = worker.get("/f");
    for (if_range, status) in [
        (known.header("etag").expect("a tag"), 206),
        (known.header("last-modified").expect("a date"), 206),
        ("\"other\"", 200),
        ("Sat, 01 Jan 2022 00:00:00 GMT", 200),
    ] {
        let reply = worker.ask("GET", "/f", &format!("Range: bytes=0-0\r\nIf-Range: {if_range}\r\n"));
        assert_eq!(reply.status, status, "{if_range}");
    }
}

#[test]
fn conditions() {
    let worker = Running::start();
    worker.file("f", "0123456789");
    age(&worker.root().join("f"));
    let known = worker.get("/f");
    let (tag, date) = (known.header("etag").expect("a tag"), known.header("last-modified").expect("a date"));
    for (header, status) in [
        (format!("If-None-Match: {tag}"), 304),
        (format!("If-Modified-Since: {date}"), 304),
        ("If-None-Match: \"other\"".to_owned(), 200),
        ("If-Match: \"other\"".to_owned(), 412),
        (format!("If-Match: {tag}"), 200),
    ] {
        let reply = worker.ask("GET", "/f", &format!("{header}\r\n"));
        assert_eq!(reply.status, status, "{header}");
        if status == 304 {
            assert_eq!((reply.header("etag"), reply.body.len()), (Some(tag), 0));
        }
    }
    worker.file("f", "changed");
    assert_eq!(worker.ask("GET", "/f", &format!("If-None-Match: {tag}\r\n")).status, 200);
}

#[test]
fn directories() {
    let worker = Running::start();
    worker.file("with/index.html", "<p>index");
    worker.file("sub/one.txt", "1");
    worker.file("sub/.hidden", "2");
    worker.file("sub/deeper/x", "3");
    assert_eq!(worker.get("/with/").text(), "<p>index");
    let page = worker.get("/sub/");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(
        page.header("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'"))
    );
    let links: Vec<_> = page.text().lines().filter(|line| line.starts_with("<li>")).collect();
    assert_eq!(
        links,
        [
            "<li><a href=\"../\">../</a>",
            "<li><a href=\"./deeper/\">deeper/</a>",
            "<li><a href=\"./one.txt\">one.txt</a>"
        ]
    );
    assert!(worker.get("/").text().contains("<h1>/</h1>"));
}

#[test]
fn a_directory_without_its_slash_is_redirected_within_the_site() {
    let worker = Running::start();
    worker.file("a b/x", "");
    for (path, location) in [
        ("/a%20b", "/a%20b/"),
        ("/a%20b?q=1&r", "/a%20b/?q=1&r"),
        // Without care this would lead to a host of that name.
        ("//a%20b", "/a%20b/"),
    ] {
        let reply = worker.get(path);
        assert_eq!((reply.status, reply.header("location")), (301, Some(location)), "{path}");
    }
    worker.file("f", "");
    assert_eq!(worker.get("/f/").status, 404);
}

#[test]
fn names_in_a_listing_do_nothing() {
    let worker = Running::start();
    worker.file("<img src=x onerror=alert(1)>", "");
    let page = worker.get("/");
    assert!(page.text().contains("&lt;img src=x onerror=alert(1)&gt;"));
    assert!(!page.text().contains("<img"));
}

#[test]
fn nothing_outside_is_served() {
    let worker = Running::start();
    std::fs::write(worker.directory.path().join("secret"), "secret").expect("a file");
    std::fs::create_dir(worker.directory.path().join("site-2")).expect("a directory");
    std::fs::write(worker.directory.path().join("site-2/secret"), "secret").expect("a file");
    worker.file("sub/f", "fine");
    let root = worker.root();
    symlink("../secret", root.join("up")).expect("a link");
    symlink("/etc/passwd", root.join("absolute")).expect("a link");
    symlink(root.join("sub/f"), root.join("absolute-within")).expect("a link");
    symlink("..", root.join("parent")).expect("a link");
    symlink("/proc/self/root/etc/passwd", root.join("magic")).expect("a link");
    symlink("loop", root.join("loop")).expect("a link");
    symlink("sub/f", root.join("within")).expect("a link");
    symlink("../within", root.join("sub/up-within")).expect("a link");
    for path in [
        "/../secret",
        "/..%2fsecret",
        "/%2e%2e/secret",
        "/sub/../../secret",
        "/sub/%2e%2e/%2e%2e/secret",
        "/up",
        "/absolute",
        "/absolute-within",
        "/parent/secret",
        "/parent/",
        "/magic",
        "/loop",
        "/../site-2/secret",
        "/..",
        "/.",
        "/%2e",
        "/%2e%2e",
        "//../secret",
        "/sub/f%00",
        "/sub%2ff",
        "/..%5csecret",
        "/....//secret",
    ] {
        let reply = worker.get(path);
        assert_eq!(reply.status, 404, "{path}");
        assert!(!reply.text().contains("secret") && !reply.text().contains("root:"), "{path}");
    }
    assert_eq!(worker.get("/within").text(), "fine");
    assert_eq!(worker.get("/sub/up-within").text(), "fine");
}

#[test]
fn the_same_without_openat2_but_no_links_at_all() {
    let worker = Running::start();
    std::fs::write(worker.directory.path().join("secret"), "secret").expect("a file");
    worker.file("sub/f", "fine");
    let root = worker.root();
    symlink("../secret", root.join("up")).expect("a link");
    symlink("sub", root.join("link")).expect("a link");
    let old = super::Root::without_openat2(&root);
    assert!(old.find(b"sub/f").is_ok() && old.find(b"sub").is_ok() && old.find(b"").is_ok());
    for path in ["up", "link", "link/f", "../secret", "sub/../../secret", "none", "sub/f/x"] {
        assert!(old.find(path.as_bytes()).is_err(), "{path}");
    }
}

#[test]
fn dotfiles_and_special_files_are_not_there() {
    let worker = Running::start();
    worker.file(".env", "secret");
    worker.file(".git/config", "secret");
    rustix::fs::mkfifoat(rustix::fs::CWD, worker.root().join("fifo"), rustix::fs::Mode::RWXU)
        .expect("a FIFO");
    for path in ["/.env", "/.git/config", "/.git/", "/fifo", "/none", "/none/"] {
        assert_eq!(worker.get(path).status, 404, "{path}");
    }
    assert!(!worker.get("/").text().contains("env"));
}

#[test]
fn who_answers() {
    let worker = Running::start();
    let reply = worker.get("/.relisten");
    assert_eq!(
        reply.text(),
        "{\"slot\":3,\"generation\":7,\"pid\":42,\"name\":\"web\",\"version\":\"0.0.0\"}\n"
    );
    assert_eq!((reply.header("relisten-slot"), reply.header("relisten-generation")), (Some("3"), Some("7")));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

#[test]
fn other_methods() {
    let worker = Running::start();
    worker.file("f", "x");
    for method in ["POST", "PUT", "DELETE", "FOO"] {
        let reply = worker.ask(method, "/f", "Content-Length: 0\r\n");
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
    }
    let options = worker.ask("OPTIONS", "*", "");
    assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, OPTIONS")));
}

#[test]
fn connections_are_kept_and_requests_may_come_together() {
    let worker = Running::start();
    worker.file("f", "x");
    let mut stream = worker.connect();
    for _ in 0..3 {
        stream.write_all(b"GET /f HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
        assert_eq!(read_reply(&mut stream).text(), "x");
    }
    stream.write_all(&b"GET /f HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3)).expect("it reads");
    for _ in 0..3 {
        assert_eq!(read_reply(&mut stream).text(), "x");
    }
}

#[test]
fn a_file_cut_short_while_it_is_sent_is_a_broken_answer() {
    let worker = Running::start();
    worker.file("f", vec![b'x'; 8_000_000]);
    let mut stream = worker.connect();
    // Not read for now, so that most of the file is still to be sent.
    stream.write_all(b"GET /f HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it reads");
    stream.peek(&mut [0]).expect("it answers");
    std::fs::File::options()
        .write(true)
        .open(worker.root().join("f"))
        .and_then(|file| file.set_len(10))
        .expect("cut");
    let mut bytes = Vec::new();
    // Closed or reset, but not filled up with something.
    let _ = std::io::Read::read_to_end(&mut stream, &mut bytes);
    assert!(bytes.len() < 8_000_000, "{} bytes", bytes.len());
}
