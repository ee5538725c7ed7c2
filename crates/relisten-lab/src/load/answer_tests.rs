use super::*;

const OK: RangeInclusive<u16> = 200..=399;

/// Feeds `data` in pieces of `size`; returns the answer and the surplus.
fn in_pieces(data: &[u8], size: usize) -> Result<(Answer<'static>, usize), Malformed> {
    let mut answer = Answer::new(false, Some("X-Slot"));
    let mut surplus = 0;
    for piece in data.chunks(size) {
        surplus += piece.len() - answer.feed(piece)?;
    }
    Ok((answer, surplus))
}

/// The same whatever the pieces.
fn every_way(data: &[u8], check: impl Fn(Answer<'static>, usize)) {
    for size in 1..=data.len() {
        let (answer, surplus) = in_pieces(data, size).expect("well-formed");
        check(answer, surplus);
    }
}

#[test]
fn content_length() {
    every_way(
        b"HTTP/1.1 200 OK\r\nX-slot:  3 \r\nContent-Length: 5\r\n\r\nhelloHTT",
        |mut answer, surplus| {
            assert!(answer.is_done() && answer.keep_alive());
            assert_eq!((answer.status(), surplus, answer.whole(&OK)), (200, 3, Fate::Completed));
            assert_eq!(answer.take_label().as_deref(), Some("3"));
        },
    );
}

#[test]
fn chunked_with_extension_and_trailer() {
    let data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n";
    every_way(data, |answer, surplus| {
        assert!(answer.is_done() && answer.keep_alive());
        assert_eq!((surplus, answer.received()), (0, data.len() as u64));
    });
}

#[test]
fn until_close_is_whole_only_at_the_end() {
    every_way(b"HTTP/1.0 200 OK\n\nsome", |answer, _| {
        assert!(!answer.is_done() && !answer.keep_alive());
        assert_eq!((answer.at_end_of_stream(&OK), answer.at_reset()), (Fate::Completed, Fate::ResetMidReply));
    });
}

#[test]
fn interim_answers_are_passed_over() {
    every_way(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
        |answer, _| {
            assert!(answer.is_done());
            assert_eq!(answer.status(), 204);
        },
    );
}

#[test]
fn every_cut_is_a_loss() {
    let data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for cut in 0..data.len() {
        let mut answer = Answer::new(false, None);
        answer.feed(&data[..cut]).expect("a prefix is well-formed");
        let (closed, reset) = if cut == 0 {
            (Fate::Empty, Fate::ResetBeforeByte)
        } else {
            (Fate::Truncated, Fate::ResetMidReply)
        };
        assert_eq!((answer.at_end_of_stream(&OK), answer.at_reset()), (closed, reset), "cut at {cut}");
    }
}

#[test]
fn keep_alive_by_version_and_header() {
    for (head, keep_alive) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: foo, Close", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive", true),
        ("HTTP/1.1 200 OK", false),
    ] {
        let (answer, _) = in_pieces(format!("{head}\r\n\r\n").as_bytes(), 7).expect(head);
        assert_eq!(answer.keep_alive(), keep_alive, "{head}");
    }
}

#[test]
fn head_requests_have_no_body() {
    let mut answer = Answer::new(true, None);
    answer.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n").expect("well-formed");
    assert!(answer.is_done() && answer.keep_alive());
}

#[test]
fn nonsense_is_malformed() {
    for data in [
        "SSH-2.0-OpenSSH\r\n",
        "H2",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 101 Switching\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ] {
        for size in [1, 2, data.len()] {
            assert!(in_pieces(data.as_bytes(), size).is_err(), "{data:?} in pieces of {size}");
        }
    }
    let endless = vec![b'a'; 100_000];
    let mut answer = Answer::new(false, None);
    assert!(answer.feed(b"HTTP/1.1 200 OK\r\n").is_ok());
    assert!(answer.feed(&endless).is_err(), "an endless head is cut off");
}
