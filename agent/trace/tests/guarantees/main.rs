//! `guarantees` alone finds what a broken core would do: traces written by hand, each with one thing wrong.

mod departures;
mod evacuations;
mod patience;
mod pen;
mod reports;
mod restores;
mod saves;
