//! `isostack-agent classify [FILE...]`, with grep's manners: 0 if a line says something, 1 if
//! none does, 2 if something could not be read.

use std::{
    fs::File,
    io::{self, BufWriter, Read as _, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use anstream::AutoStream;

use crate::{
    classify::{
        Only, report,
        stream::{Found, Stream},
        tail::{Begin, Look, Tail},
    },
    cli::{ClassifyArgs, Output},
    command::complain,
};

/// Between looks at files that are followed.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A file with a zero byte among so many first ones is not text.
const TEXT_PROBE_BYTES: usize = 8000;

/// Waiting for it would keep the lines of the files waiting.
const NOT_BESIDE_FILES: &str = "standard input cannot be followed beside files; give it alone";

/// Why it stops early.
enum Stop {
    /// Nobody reads what it writes.
    ReaderGone,
    /// Writing fails otherwise.
    Write(io::Error),
}

/// A file that is followed.
struct Followed<'o> {
    tail: Tail,
    stream: Stream<'o>,
    /// It was not there, and that was said.
    gone: bool,
}

/// What came out so far.
struct Answer<W: Write> {
    out: W,
    output: Output,
    named: bool,
    matched: bool,
    failed: bool,
}

/// `isostack-agent classify`.
#[must_use]
pub fn classify(args: &ClassifyArgs) -> ExitCode {
    let stdout = match args.output {
        // It removes colours where they are not wanted (no terminal, NO_COLOR).
        Output::Table => AutoStream::auto(io::stdout().lock()),
        // There are none in JSON, and looking for them would cost more than writing it.
        Output::Json => AutoStream::always_ansi(io::stdout().lock()),
    };
    let out = BufWriter::with_capacity(64 * 1024, stdout);
    let mut answer = Answer {
        out,
        output: args.output,
        named: args.files.len() > 1,
        matched: false,
        failed: false,
    };
    let only = Only { layers: &args.only };
    let stop = if args.follow && args.files.iter().any(|file| !is_stdin(file)) {
        answer.follow(&args.files, only)
    } else {
        answer.read(args, only)
    };
    let stop = stop.and_then(|()| answer.flush());
    match stop {
        Ok(()) | Err(Stop::ReaderGone) => {}
        Err(Stop::Write(error)) => {
            complain(&format_args!("cannot write: {error}"));
            answer.failed = true;
        }
    }
    match (answer.failed, answer.matched) {
        (true, _) => 2.into(),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => 1.into(),
    }
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

impl<W: Write> Answer<W> {
    /// Each file, or standard input, to its end.
    fn read(&mut self, args: &ClassifyArgs, only: Only<'_>) -> Result<(), Stop> {
        let stdin = [PathBuf::from("-")];
        let files = match args.files.as_slice() {
            [] => &stdin,
            files => files,
        };
        for file in files {
            let read = if is_stdin(file) {
                self.whole(io::stdin().lock(), file, only, false)
            } else {
                open(file).and_then(|(opened, regular)| {
                    self.whole(opened, file, only, regular && !args.text)
                })
            };
            match read {
                Ok(stop) => stop?,
                Err(error) => self.complain(file, &error),
            }
        }
        Ok(())
    }

    /// One file to its end; `probe`: see first whether it is text.
    fn whole(
        &mut self,
        mut from: impl io::Read,
        file: &Path,
        only: Only<'_>,
        probe: bool,
    ) -> io::Result<Result<(), Stop>> {
        let mut first = vec![0; if probe { TEXT_PROBE_BYTES } else { 0 }];
        let probed = read_full(&mut from, &mut first)?;
        first.truncate(probed);
        if let Some(reader) = reader_of(&first) {
            return Err(io::Error::other(format!(
                "it is compressed; try {reader} {} | isostack-agent classify",
                file.display()
            )));
        }
        let binary = first.contains(&0);
        let mut from = io::Cursor::new(first).chain(from);
        let mut stream = Stream::new(only);
        loop {
            let n = match from.read(stream.space()) {
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut sink = |found: Found<'_>| {
                if binary {
                    ControlFlow::Break(None)
                } else {
                    self.show(&found, file).map_break(Some)
                }
            };
            let step = match n {
                0 => stream.finish(&mut sink),
                n => stream.advance(n, &mut sink),
            };
            match step {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(Some(stop)) => return Ok(Err(stop)),
                ControlFlow::Break(None) => {
                    self.matched = true;
                    complain(&format_args!("{}: binary file matches", file.display()));
                    return Ok(Ok(()));
                }
            }
            // Whoever pipes a log that goes on wants each line when it comes.
            if let Err(stop) = self.flush() {
                return Ok(Err(stop));
            }
            if n == 0 {
                return Ok(Ok(()));
            }
        }
    }

    /// Each file from its start, and on as it grows; ends only when none can be read.
    fn follow(&mut self, files: &[PathBuf], only: Only<'_>) -> Result<(), Stop> {
        let (stdin, files): (Vec<_>, Vec<_>) = files.iter().partition(|file| is_stdin(file));
        if let Some(stdin) = stdin.first() {
            self.complain(stdin, &io::Error::other(NOT_BESIDE_FILES));
        }
        let mut followed: Vec<_> = files
            .into_iter()
            .map(|file| Followed {
                tail: Tail::new(file.clone(), Begin::Start),
                stream: Stream::new(only),
                gone: false,
            })
            .collect();
        while !followed.is_empty() {
            let mut busy = false;
            let mut index = 0;
            while let Some(file) = followed.get_mut(index) {
                match self.look(file)? {
                    Some(news) => {
                        busy |= news;
                        index += 1;
                    }
                    None => drop(followed.remove(index)),
                }
            }
            self.flush()?;
            if !busy {
                thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }

    /// Whether there was something new; none if the file cannot be read.
    fn look(&mut self, file: &mut Followed<'_>) -> Result<Option<bool>, Stop> {
        let path = file.tail.path().to_owned();
        let look = match file.tail.look(file.stream.space()) {
            Ok(look) => look,
            Err(error) => {
                self.complain(&path, &error);
                return Ok(None);
            }
        };
        let gone = look == Look::Gone;
        if gone && !file.gone {
            complain(&format_args!(
                "{}: not there; waiting for it",
                path.display()
            ));
        }
        file.gone = gone;
        let mut sink = |found: Found<'_>| self.show(&found, &path);
        let step = match look {
            Look::Bytes(n) => file.stream.advance(n, &mut sink),
            Look::Restarted => file.stream.finish(&mut sink),
            Look::Nothing | Look::Gone => return Ok(Some(false)),
        };
        match step {
            ControlFlow::Continue(()) => Ok(Some(true)),
            ControlFlow::Break(stop) => Err(stop),
        }
    }

    fn show(&mut self, found: &Found<'_>, file: &Path) -> ControlFlow<Stop> {
        self.matched = true;
        let name = self.named.then(|| file.to_string_lossy());
        let shown = match self.output {
            Output::Json => report::json(&mut self.out, found, name.as_deref()),
            Output::Table => report::table(&mut self.out, found, name.as_deref()),
        };
        match shown {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error.into()),
        }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.out.flush().map_err(Stop::from)
    }

    fn complain(&mut self, file: &Path, error: &io::Error) {
        self.failed = true;
        complain(&format_args!("{}: {error}", file.display()));
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Write(error),
        }
    }
}

/// What makes text of a compressed file, by how that begins.
fn reader_of(first: &[u8]) -> Option<&'static str> {
    const FORMS: [(&[u8], &str); 3] = [
        (b"\x1f\x8b", "zcat"),
        (b"\x28\xb5\x2f\xfd", "zstdcat"),
        (b"\xfd7zXZ\0", "xzcat"),
    ];
    let form = FORMS.iter().find(|(magic, _)| first.starts_with(magic));
    form.map(|(_, reader)| *reader)
}

/// The file, and whether it is a regular one.
fn open(file: &Path) -> io::Result<(File, bool)> {
    let opened = File::open(file)?;
    let meta = opened.metadata()?;
    if meta.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok((opened, meta.is_file()))
}

/// As many bytes as there are, up to the buffer's size.
fn read_full(from: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
