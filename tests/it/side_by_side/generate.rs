//! Sequences of operations, each from a number.
//!
//! Few names, few descriptors and small files, so that operations meet: what is open is renamed,
//! unlinked, cut short, mapped, opened again and forked, by two processes.

/// One operation: `PROCESS VERB ARGUMENTS`.
pub(super) type Operation = String;

/// A generator of numbers (xorshift64*): the same on every machine.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let index = usize::try_from(self.roll(of.len() as u64)).expect("small");
        of[index]
    }
}

const FILES: [&str; 6] = ["a", "b", "c", "d/a", "d/b", "e/a"];
const DIRS: [&str; 3] = ["d", "e", "d/f"];
const SLOTS: [&str; 4] = ["0", "1", "2", "3"];
const MAPS: [&str; 2] = ["0", "1"];
const ACCESS: [&str; 4] = ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_RDWR"];
const HOW: [&str; 8] = [
    "O_CREAT",
    "O_CREAT",
    "O_CREAT|O_TRUNC",
    "O_CREAT|O_APPEND",
    "O_APPEND",
    "O_CREAT|O_EXCL",
    "O_TRUNC",
    "O_CLOEXEC",
];
/// Lengths: within a page, over one, over what rides in a record of the log.
const LENGTHS: [u64; 8] = [1, 7, 100, 1000, 4096, 5000, 20_000, 40_000];
const PLACES: [u64; 7] = [0, 0, 1, 100, 4095, 8192, 30_000];

/// What is open as far as the generator can tell: most operations take what is.
#[derive(Debug, Default)]
struct Open {
    slots: Vec<&'static str>,
    maps: Vec<&'static str>,
}

/// `length` operations from a number.
pub(super) fn sequence(number: u64, length: usize) -> Vec<Operation> {
    let mut dice = Dice(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut open = [Open::default(), Open::default()];
    let first = [
        "mkdir d",
        "mkdir e",
        "open 0 a O_RDWR|O_CREAT",
        "write 0 0 5000",
    ];
    let mut all: Vec<_> = first.iter().map(|what| format!("0 {what}")).collect();
    open[0].slots.push("0");
    while all.len() < length {
        // Mostly the first: what one process does in a row goes deeper than turns.
        let process = usize::from(dice.roll(3) == 0);
        let what = operation(&mut dice, &mut open[process], all.len());
        all.push(format!("{process} {what}"));
    }
    all
}

fn operation(dice: &mut Dice, open: &mut Open, step: usize) -> String {
    match dice.roll(100) {
        0..14 => opening(dice, open),
        14..58 if !open.slots.is_empty() => of_a_descriptor(dice, open, step),
        58..70 if !open.slots.is_empty() => of_a_mapping(dice, open, step),
        14..70 => opening(dice, open),
        _ => of_a_name(dice),
    }
}

fn opening(dice: &mut Dice, open: &mut Open) -> String {
    let slot = dice.pick(&SLOTS);
    if !open.slots.contains(&slot) {
        open.slots.push(slot);
    }
    let (access, how) = (dice.pick(&ACCESS), dice.pick(&HOW));
    format!("open {slot} {} {access}|{how}", dice.pick(&FILES))
}

fn of_a_descriptor(dice: &mut Dice, open: &mut Open, step: usize) -> String {
    let slot = dice.pick(&open.slots);
    let (at, length) = (dice.pick(&PLACES), dice.pick(&LENGTHS));
    match dice.roll(22) {
        0..2 => {
            open.slots.retain(|other| *other != slot);
            format!("close {slot}")
        }
        2 => format!("dup {slot} {}", dice.pick(&open.slots)),
        3..8 => format!("write {slot} {step} {length}"),
        8..10 => format!("pwrite {slot} {at} {step} {length}"),
        10 => format!("forked {slot} {step} {length}"),
        11 => format!("read {slot} {length}"),
        12..14 => format!("pread {slot} {at} {length}"),
        14 => format!(
            "seek {slot} {at} {}",
            dice.pick(&["SEEK_SET", "SEEK_CUR", "SEEK_END"])
        ),
        15 => format!("ftruncate {slot} {}", dice.pick(&LENGTHS)),
        16 => format!("fsync {slot}"),
        17 => format!("fstat {slot}"),
        18 => format!("allocate {slot} {at} {length}"),
        19 => format!("punch {slot} {at} {length}"),
        20 => {
            let (to, target) = (dice.pick(&open.slots), dice.pick(&PLACES));
            format!("copy {slot} {at} {to} {target} {length}")
        }
        _ => format!("fchmod {slot} {}", dice.pick(&["600", "644", "755"])),
    }
}

fn of_a_mapping(dice: &mut Dice, open: &mut Open, step: usize) -> String {
    let (at, length) = (dice.pick(&PLACES[..5]), dice.pick(&LENGTHS[..4]));
    if open.maps.is_empty() || dice.roll(5) == 0 {
        let map = dice.pick(&MAPS);
        open.maps.push(map);
        return format!("map {} {map}", dice.pick(&open.slots));
    }
    let map = dice.pick(&open.maps);
    match dice.roll(6) {
        0..3 => format!("store {map} {at} {step} {length}"),
        3 => format!("load {map} {at} {length}"),
        4 => format!("msync {map}"),
        _ => {
            open.maps.retain(|other| *other != map);
            format!("unmap {map}")
        }
    }
}

fn of_a_name(dice: &mut Dice) -> String {
    let file = dice.pick(&FILES);
    let dir = dice.pick(&DIRS);
    match dice.roll(24) {
        0..2 => format!("unlink {file}"),
        2..7 => format!("rename {file} {} 0", dice.pick(&FILES)),
        7 => format!("rename {file} {} 1", dice.pick(&FILES)),
        8 => format!("rename {file} {} 2", dice.pick(&FILES)),
        9 => format!("rename {dir} {} 0", dice.pick(&DIRS)),
        // Not over a name of a file: a directory is not exchanged (`EINVAL`).
        10 => format!("rename {file} {dir} 0"),
        11..13 => format!("mkdir {dir}"),
        13 => format!("rmdir {dir}"),
        14 => format!("symlink {} {file}", dice.pick(&FILES)),
        15 => format!("readlink {file}"),
        16 => format!("chmod {file} {}", dice.pick(&["600", "640", "755"])),
        17 => format!("utimes {file} {}", 1_000_000_000 + dice.roll(9)),
        18 => format!("truncate {file} {}", dice.pick(&LENGTHS)),
        19 => format!("list {dir}"),
        20..22 => format!("cat {file}"),
        _ => format!("stat {}", dice.pick(&[file, dir])),
    }
}

#[test]
fn a_sequence_is_the_same_every_time_and_holds_every_kind_of_operation() {
    assert_eq!(sequence(7, 60), sequence(7, 60));
    let many: String = (0..50).flat_map(|number| sequence(number, 60)).collect();
    for verb in ["forked", "store", "rename", "copy", "O_APPEND", "truncate"] {
        assert!(many.contains(verb), "{verb}");
    }
}
