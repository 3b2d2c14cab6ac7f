//! Checking: the rule of each field, the rules between fields, and what the machine must allow.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::Access;

use ringhold_storage::checkpoints::replica_of;

use super::rule::{Rule, quoted, span_text};
use super::{Config, DeviceKind, Host, Problem, Visitor};

pub fn check(config: &Config) -> Vec<Problem> {
    let mut checker = Checker::default();
    config.clone().visit(&mut checker);
    checker.devices(config);
    checker.between_fields(config);
    checker.data_dir(&config.node.data_dir);
    checker.tls(config);
    checker.problems
}

#[derive(Default)]
struct Checker {
    prefix: String,
    problems: Vec<Problem>,
}

impl Checker {
    fn problem(&mut self, field: &str, value: impl ToString, rule: impl Into<String>, fix: impl Into<String>) {
        let (rule, fix) = (rule.into(), fix.into());
        self.problems.push(Problem { field: field.into(), line: None, value: value.to_string(), rule, fix });
    }

    fn devices(&mut self, config: &Config) {
        let devices = &config.devices.0;
        if devices.is_empty() {
            self.problem(
                "devices",
                "[]",
                "at least one device",
                "add a [[devices]] table, or leave `devices` out for one CPU device",
            );
        }
        let mut names = HashSet::new();
        for (index, device) in devices.iter().enumerate() {
            let name = config.device_name(index);
            if !matches!(device.kind, DeviceKind::Auto | DeviceKind::Cpu) && device.host == Host::InProcess {
                self.problem(
                    &format!("devices[{index}].host"),
                    quoted("in-process"),
                    "\"process\" where the device is no CPU",
                    "leave it out",
                );
            }
            if replica_of(&name).is_some() {
                self.problem(
                    &format!("devices[{index}].name"),
                    quoted(&name),
                    "a name that does not begin with `replica/`: copies of other nodes' devices are called so",
                    "give it another name",
                );
            }
            if !names.insert(name.clone()) {
                self.problem(
                    &format!("devices[{index}].name"),
                    quoted(&name),
                    "a name that no other device has",
                    "give one of the two another name",
                );
            }
        }
    }

    /// Whether each of the fields keeps its own rule: only then is one between them worth a word.
    fn fine(&self, fields: [&str; 2]) -> bool {
        !self.problems.iter().any(|problem| fields.contains(&problem.field.as_str()))
    }

    fn between_fields(&mut self, config: &Config) {
        let queues = &config.queues;
        if queues.low_water_percent >= queues.high_water_percent
            && self.fine(["queues.low_water_percent", "queues.high_water_percent"])
        {
            self.problem(
                "queues.low_water_percent",
                queues.low_water_percent,
                format!("less than queues.high_water_percent, which is {}", queues.high_water_percent),
                format!("write {}", queues.high_water_percent.saturating_sub(20).max(1)),
            );
        }
        if queues.batch_messages > queues.inbox_slots && self.fine(["queues.batch_messages", "queues.inbox_slots"]) {
            self.problem(
                "queues.batch_messages",
                queues.batch_messages,
                format!("at most queues.inbox_slots, which is {}", queues.inbox_slots),
                format!("write {}", queues.inbox_slots),
            );
        }
        let supervision = &config.supervision;
        let text = |span: std::time::Duration| quoted(&span_text(span.as_millis() as u64));
        let pairs = [
            (
                ["supervision.restart_backoff_max", "supervision.restart_backoff_min"],
                [supervision.restart_backoff_max, supervision.restart_backoff_min],
            ),
            (
                ["supervision.breaker_retry_max", "supervision.breaker_retry_min"],
                [supervision.breaker_retry_max, supervision.breaker_retry_min],
            ),
        ];
        for (names, [max, min]) in pairs {
            if max < min && self.fine(names) {
                let min = text(min);
                let rule = format!("no less than {}, which is {min}", names[1]);
                self.problem(names[0], text(max), rule, format!("write {min}"));
            }
        }
    }

    /// The node makes the folder when it starts; here its place must allow that.
    fn data_dir(&mut self, path: &Path) {
        const RULE: &str = "a folder that the node can write to, or make";
        let mut place = path;
        let metadata = loop {
            match std::fs::metadata(if place.as_os_str().is_empty() { Path::new(".") } else { place }) {
                Ok(metadata) => break metadata,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && place.parent().is_some() => {
                    place = place.parent().expect("just seen");
                }
                Err(error) => {
                    let fix = format!("choose another folder: {} cannot be reached ({error})", place.display());
                    return self.problem("node.data_dir", quoted(&path.display().to_string()), RULE, fix);
                }
            }
        };
        let place = if place.as_os_str().is_empty() { Path::new(".") } else { place };
        let fix = if !metadata.is_dir() {
            format!("choose another folder: {} is a file", place.display())
        } else if let Err(error) = rustix::fs::access(place, Access::WRITE_OK | Access::EXEC_OK) {
            let user = rustix::process::geteuid().as_raw();
            format!("choose another folder, or let user {user} write to {} ({error})", place.display())
        } else {
            return;
        };
        self.problem("node.data_dir", quoted(&path.display().to_string()), RULE, fix);
    }

    fn tls(&mut self, config: &Config) {
        let tls = &config.tls;
        let files = [
            ("tls.ca_file", &tls.ca_file),
            ("tls.certificate_file", &tls.certificate_file),
            ("tls.key_file", &tls.key_file),
        ];
        let any = files.iter().any(|(_, file)| file.is_some());
        for (field, file) in files {
            match file {
                Some(path) if path.as_os_str().is_empty() => {}
                Some(path) => {
                    if let Err(why) = pem(path) {
                        let value = quoted(&path.display().to_string());
                        self.problem(field, value, "a PEM file that the node can read", why);
                    }
                }
                None if any => self.problem(
                    field,
                    "",
                    "set, as others of [tls] are",
                    "set ca_file, certificate_file and key_file, or none of them",
                ),
                None => {}
            }
        }
    }
}

fn pem(path: &Path) -> Result<(), String> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(1 << 20).read_to_end(&mut text))
        .map_err(|error| format!("make it readable, or name another: {error}"))?;
    let mark = b"-----BEGIN ";
    if text.windows(mark.len()).any(|window| window == mark) {
        Ok(())
    } else {
        Err("convert it to PEM (text with `-----BEGIN …-----` lines), or name another".into())
    }
}

impl Visitor for Checker {
    fn section(&mut self, name: &'static str, _: &'static str) {
        self.prefix = name.into();
    }

    fn sections<T: Default>(
        &mut self,
        name: &'static str,
        _: &'static str,
        items: &mut Vec<T>,
        each: fn(&mut T, &mut Self),
    ) {
        for (index, item) in items.iter_mut().enumerate() {
            self.prefix = format!("{name}[{index}]");
            each(item, self);
        }
    }

    fn field<T, R: Rule<T>>(&mut self, name: &'static str, value: &mut T, rule: R, _: &'static str) {
        if let Err(fix) = rule.check(value) {
            let field = format!("{}.{name}", self.prefix);
            self.problem(&field, rule.write(value).unwrap_or_default(), rule.text(), fix);
        }
    }
}
