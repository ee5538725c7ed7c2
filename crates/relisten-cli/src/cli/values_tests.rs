use super::*;
use proptest::prelude::*;

fn span(text: &str) -> Result<Duration, String> {
    text.parse::<Span>().map(|s| s.0).map_err(|e| e.to_string())
}

#[test]
fn spans_need_a_unit() {
    assert_eq!(span("200ms"), Ok(Duration::from_millis(200)));
    assert_eq!(span("2m"), Ok(Duration::from_secs(120)));
    assert_eq!(span("1h30m"), Ok(Duration::from_secs(5400)));
    assert_eq!(span("0"), Ok(Duration::ZERO));
    assert!(span("30").unwrap_err().starts_with("30 of what?"));
    assert!(span("30 parsecs").unwrap_err().starts_with("unknown unit of time `parsecs`"));
    assert!(span("").unwrap_err().starts_with("not a length of time"));
    assert!(span("-1s").is_err());
    assert_eq!(span("999999999999999999999s").unwrap_err(), "longer than 366 days");
    assert_eq!(span("2y").unwrap_err(), "longer than 366 days");
}

#[test]
fn never_is_a_span_only_where_it_makes_sense() {
    assert_eq!("never".parse(), Ok(SpanOrNever(None)));
    assert_eq!("5s".parse(), Ok(SpanOrNever(Some(Duration::from_secs(5)))));
    assert!("never".parse::<Span>().is_err());
    assert!("5".parse::<SpanOrNever>().unwrap_err().to_string().ends_with("or never"));
}

#[test]
fn workers_are_at_least_one() {
    assert_eq!("auto".parse(), Ok(Workers::Auto));
    assert_eq!("4".parse::<Workers>().unwrap().count(), 4);
    assert_eq!("0".parse::<Workers>(), Err(ValueError::NoWorkers));
    assert_eq!("-1".parse::<Workers>(), Err(ValueError::Workers));
    assert_eq!("1025".parse::<Workers>(), Err(ValueError::Workers));
    assert!(Workers::Auto.count() >= 1);
}

#[test]
fn readiness() {
    assert_eq!("http:/up?x=1".parse(), Ok(ReadyWhen(Ready::Http("/up?x=1".into()))));
    assert_eq!("3s".parse(), Ok(ReadyWhen(Ready::After(Duration::from_secs(3)))));
    assert_eq!("notify".parse(), Ok(ReadyWhen(Ready::Notify)));
    assert_eq!("sometime".parse::<ReadyWhen>(), Err(ValueError::Ready));
    assert_eq!("http:up".parse::<ReadyWhen>(), Err(ValueError::HttpPath));
    assert_eq!("http://host/up".parse::<ReadyWhen>(), Err(ValueError::HttpPath));
    assert_eq!("http:/a b".parse::<ReadyWhen>(), Err(ValueError::HttpPath));
    assert!("3".parse::<ReadyWhen>().unwrap_err().to_string().starts_with("3 of what?"));
}

#[test]
fn signals_by_name_and_number() {
    assert_eq!("TERM".parse(), Ok(StopSignal(15)));
    assert_eq!("sigquit".parse(), Ok(StopSignal(3)));
    assert_eq!("2".parse(), Ok(StopSignal(2)));
    assert_eq!("64".parse(), Ok(StopSignal(64)));
    assert_eq!("65".parse::<StopSignal>(), Err(ValueError::Signal));
    assert_eq!("KILL".parse::<StopSignal>(), Err(ValueError::SignalUseless));
    assert_eq!("19".parse::<StopSignal>(), Err(ValueError::SignalUseless));
    assert_eq!("HUPP".parse::<StopSignal>(), Err(ValueError::Signal));
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = text.parse::<Workers>();
        let _ = text.parse::<Span>();
        let _ = text.parse::<SpanOrNever>();
        let _ = text.parse::<ReadyWhen>();
        let _ = text.parse::<HttpPath>();
        let _ = text.parse::<StopSignal>();
        let _ = text.parse::<Feature>();
        let _ = text.parse::<Backlog>();
        let _ = text.parse::<Count>();
    }

    #[test]
    fn spans_read_back(ms in 0u64..MAX_SPAN.as_millis() as u64) {
        prop_assert_eq!(span(&format!("{ms}ms")), Ok(Duration::from_millis(ms)));
    }

    #[test]
    fn no_path_can_end_the_request_line(text in "http:/[ -~\\r\\n\\t]{0,20}") {
        if let Ok(HttpPath(path)) = text.parse() {
            prop_assert!(!path.contains([' ', '\r', '\n', '\t']));
        }
    }
}
