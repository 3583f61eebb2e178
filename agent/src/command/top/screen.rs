//! The terminal: another page of it, keys without Enter, and all of it given back at the end,
//! also after a panic. Plain control sequences, which every terminal knows; what would have to
//! be drawn is too little for a library.

use std::{
    io::{self, IsTerminal as _, Write as _},
    panic,
    sync::{Mutex, PoisonError},
};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetwinsize,
    tcsetattr,
};
use tokio::{
    io::{AsyncReadExt as _, Stdin},
    signal::unix::{Signal, SignalKind, signal},
};

/// Another page, no cursor.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
/// The cursor, and the page that was there before.
const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";

/// How the terminal was set, while it is not.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Something that a person or the system wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// To leave.
    Quit,
    /// The window has another size.
    Resized,
    /// A key.
    Letter(char),
}

/// The terminal while it is ours.
pub(super) struct Screen {
    /// None where nobody can press a key.
    keys: Option<Stdin>,
    stop: [Signal; 3],
    resized: Signal,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be set or watched.
    pub fn open() -> io::Result<Self> {
        let mut screen = Self {
            keys: None,
            stop: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
                signal(SignalKind::interrupt())?,
            ],
            resized: signal(SignalKind::window_change())?,
        };
        let stdin = io::stdin();
        if stdin.is_terminal() {
            let before = tcgetattr(&stdin)?;
            let mut quiet = before.clone();
            // Signals stay: Ctrl-C and Ctrl-Z do what they always do.
            quiet
                .local_modes
                .remove(LocalModes::ICANON | LocalModes::ECHO);
            quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
            quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
            *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
            tcsetattr(&stdin, OptionalActions::Now, &quiet)?;
            screen.keys = Some(tokio::io::stdin());
        }
        restore_on_panic();
        io::stdout().write_all(ENTER)?;
        Ok(screen)
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(io::stdout()).ok();
        let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
        size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
    }

    /// Draws the lines from the top; false when nobody looks any more.
    ///
    /// # Errors
    /// When the terminal cannot be written to.
    pub fn draw(&mut self, lines: &[String]) -> io::Result<bool> {
        let mut page = String::from("\x1b[H");
        for (i, line) in lines.iter().enumerate() {
            if i > 0 {
                page.push_str("\r\n");
            }
            page.push_str(line);
            page.push_str("\x1b[0m\x1b[K");
        }
        page.push_str("\x1b[J");
        let mut out = io::stdout().lock();
        match out.write_all(page.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits for what somebody wants.
    pub async fn key(&mut self) -> Key {
        let [term, hangup, interrupt] = &mut self.stop;
        tokio::select! {
            _ = term.recv() => Key::Quit,
            _ = hangup.recv() => Key::Quit,
            _ = interrupt.recv() => Key::Quit,
            _ = self.resized.recv() => Key::Resized,
            key = pressed(self.keys.as_mut()) => key,
        }
    }
}

async fn pressed(keys: Option<&mut Stdin>) -> Key {
    let Some(keys) = keys else {
        return std::future::pending().await;
    };
    // An arrow or a paste is several bytes at once: only a single one is a key of ours.
    let mut bytes = [0; 32];
    match keys.read(&mut bytes).await {
        Ok(0) | Err(_) => Key::Quit,
        Ok(1) if matches!(bytes[0], b'q' | b'Q' | 3 | 4) => Key::Quit,
        Ok(1) => Key::Letter(char::from(bytes[0]).to_ascii_lowercase()),
        Ok(_) => Key::Resized,
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back; harmless when it is not ours.
fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before
        && isatty(io::stdin())
    {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
    let mut out = io::stdout().lock();
    let _ = out.write_all(LEAVE).and_then(|()| out.flush());
}

/// A panic's message would stand on the page that goes away.
fn restore_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        restore();
        report(info);
    }));
}
