//! kryptonfs: mounts an S3 bucket as a directory. A match on the command.

use std::process::ExitCode;

use kryptonfs::cli::{self, Command};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Command::Helper(helper)) => cli::mount_helper(&helper),
        Ok(Command::Supervise { program, dir, args }) => cli::supervise(&program, &dir, &args),
        Ok(Command::Mount {
            source,
            dir,
            given,
            life,
        }) => cli::mount(&source, &dir, &given, life),
        Ok(Command::Status { dir, how }) => cli::status(&dir, how),
        Ok(Command::Refresh { paths }) => cli::refresh(&paths),
        Ok(Command::Cancel { dir }) => cli::cancel(&dir),
        Ok(Command::Retry { dir }) => cli::retry(&dir),
        Ok(Command::Export {
            source,
            to,
            path,
            remove,
        }) => cli::export(&source, &to, path.as_deref(), remove),
        Ok(Command::LogLevel { dir, level }) => cli::log_level(&dir, &level),
        Ok(Command::Credentials { source, given }) => cli::credentials(source.as_deref(), &given),
        Ok(Command::Doctor { source, given, how }) => cli::doctor(&source, &given, how),
        Ok(Command::Fetch { paths }) => cli::fetch(&paths),
        Ok(Command::Drain {
            dir,
            timeout,
            progress,
        }) => cli::drain(&dir, timeout, progress),
        #[cfg(feature = "manual")]
        Ok(Command::Manual { dir }) => cli::manual(&dir),
        #[cfg(feature = "sim")]
        Ok(Command::Demo { dir, tour_only }) => kryptonfs::sim::demo::run(Some(dir), tour_only),
        #[cfg(feature = "sim")]
        Ok(Command::Sim(args)) => sim::serve(args),
        Err(wrong) => cli::wrong(&wrong),
    }
}

#[cfg(feature = "sim")]
mod sim {
    use std::process::ExitCode;

    use kryptonfs::cli::SimArgs;
    use kryptonfs::sim::{FixedKeys, ServeOptions, serve as serve_cloud};

    /// The simulated cloud as a process of its own.
    pub(super) fn serve(args: SimArgs) -> ExitCode {
        match run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(line) => {
                eprintln!("kryptonfs: {line}");
                ExitCode::FAILURE
            }
        }
    }

    fn run(args: SimArgs) -> Result<(), String> {
        let mut options = ServeOptions::new(args.dir);
        options.http = args.http;
        options.identity_policy = args.identity_policy;
        if !args.buckets.is_empty() {
            options.buckets = args.buckets;
        }
        if let Some(region) = args.region {
            options.region = region;
        }
        if let Some(life) = args.lease_life {
            options.lease_life = life;
        }
        if let Some(file) = args.fixed_keys {
            let text = std::fs::read_to_string(&file)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            options.fixed_keys = Some(text.trim().parse::<FixedKeys>()?);
        }
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .and_then(|runtime| runtime.block_on(serve_cloud(options)))
            .map_err(|error| error.to_string())
    }
}
