//! The program `overlay`. Everything it does stands in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    overlay_cli::main()
}
