//! The loop of the screen: keys and looks.

use super::draw::{Screen, draw};
use super::view::View;
use super::{ONCE, Watcher};
use crate::cli::TopArgs;
use crate::exit::Exit;
use crate::render::Paint;
use crate::say;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use relisten_diag::DiagError;
use relisten_diag::top::Top;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// How long a key may go unseen.
const TICK: Duration = Duration::from_millis(50);
/// Lines that a page key goes.
const PAGE: usize = 10;

/// Shows it until the user has seen enough.
pub(super) fn run(args: &TopArgs, view: View) -> Exit {
    let mut screen = Screen { view, colours: Paint::stdout().colours(), ..Screen::default() };
    // Restores the terminal on a panic, too.
    let mut terminal = match ratatui::try_init() {
        Ok(terminal) => terminal,
        Err(error) => return say::failed(&format!("the terminal can't be used: {error}")),
    };
    let result = watch(args, &mut screen, |screen| terminal.draw(|frame| draw(frame, screen)).map(|_| ()));
    ratatui::restore();
    match result {
        Ok(()) => Exit::Done,
        Err(error) => say::failed(&format!("terminal: {error}")),
    }
}

fn watch(
    args: &TopArgs,
    screen: &mut Screen,
    mut show: impl FnMut(&mut Screen) -> io::Result<()>,
) -> io::Result<()> {
    let (sender, looks) = channel();
    let paused = Arc::new(AtomicBool::new(false));
    // A look can take a second on a large machine; keys must not wait for it. The thread ends with its next look
    // after the screen is gone.
    let (copy, pause) = (args.clone(), Arc::clone(&paused));
    std::thread::spawn(move || look_for_ever(&copy, &pause, &sender));
    let mut seen = 0;
    show(screen)?;
    loop {
        let mut changed = false;
        if event::poll(TICK)? {
            changed = true;
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
                && pressed(screen, key)
            {
                return Ok(());
            }
            paused.store(screen.paused, Ordering::Relaxed);
        }
        while let Ok(look) = looks.try_recv() {
            if screen.paused {
                continue;
            }
            changed = true;
            match look {
                Ok(top) => (screen.top, screen.error) = (Some(top), None),
                Err(error) => screen.error = Some(say::chain(&error)),
            }
            seen += 1;
        }
        if changed {
            show(screen)?;
        }
        if args.looks.is_some_and(|most| seen >= most) {
            return Ok(());
        }
    }
}

fn look_for_ever(args: &TopArgs, paused: &AtomicBool, sender: &Sender<Result<Top, DiagError>>) {
    let mut watcher = Watcher::new(args);
    loop {
        if !paused.load(Ordering::Relaxed) && sender.send(watcher.look(ONCE)).is_err() {
            return;
        }
        std::thread::sleep(args.interval.0.max(TICK));
    }
}

/// What a key does; true: it is the end.
pub(super) fn pressed(screen: &mut Screen, key: KeyEvent) -> bool {
    if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
        return true;
    }
    if screen.typing {
        typed(screen, key.code);
        return false;
    }
    if screen.help {
        screen.help = false;
        return false;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('s') => screen.view.sort = screen.view.sort.next(),
        KeyCode::Char('r') => screen.view.reversed = !screen.view.reversed,
        KeyCode::Char('p' | ' ') => screen.paused = !screen.paused,
        KeyCode::Char('w') => screen.view.workers = !screen.view.workers,
        KeyCode::Char('u') => screen.view.udp = !screen.view.udp,
        KeyCode::Char('h' | '?') | KeyCode::F(1) => screen.help = true,
        KeyCode::Char('/') => screen.typing = true,
        KeyCode::Up | KeyCode::Char('k') => screen.scroll = screen.scroll.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => screen.scroll += 1,
        KeyCode::PageUp => screen.scroll = screen.scroll.saturating_sub(PAGE),
        KeyCode::PageDown => screen.scroll += PAGE,
        KeyCode::Home => screen.scroll = 0,
        KeyCode::End => screen.scroll = usize::MAX,
        _ => {}
    }
    false
}

fn typed(screen: &mut Screen, code: KeyCode) {
    match code {
        KeyCode::Enter => screen.typing = false,
        KeyCode::Esc => {
            screen.typing = false;
            screen.view.filter.clear();
        }
        KeyCode::Backspace => {
            screen.view.filter.pop();
        }
        KeyCode::Char(c) if !c.is_control() => screen.view.filter.push(c),
        _ => {}
    }
    screen.scroll = 0;
}
