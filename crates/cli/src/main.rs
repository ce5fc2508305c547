//! The program `overlay`. All of its code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    overlay_cli::main()
}
