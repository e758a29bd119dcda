//! Ctrl-C: the first one asks the work to stop where nothing is lost, the second one ends the process at once.
//!
//! `crates/peers` has this file too, by its path: of the lab it may use `crate::error::Error` alone.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;

/// A flag that the first Ctrl-C sets.
pub fn ctrl_c() -> &'static AtomicBool {
    static PRESSED: AtomicBool = AtomicBool::new(false);
    static HANDLER: OnceLock<()> = OnceLock::new();
    HANDLER.get_or_init(|| {
        let set = ctrlc::set_handler(|| {
            if PRESSED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            eprintln!("\nstopping; press Ctrl-C again to stop at once");
        });
        if let Err(error) = set {
            eprintln!("Ctrl-C will stop at once, whatever is under way: {error}");
        }
    });
    &PRESSED
}

/// Ask this between two steps.
///
/// # Errors
/// [`Error::Interrupted`] once `stop` is set.
pub fn check(stop: &AtomicBool) -> Result<(), Error> {
    if stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
}
