//! Tasks, task monitors and vendors' jobs.

use super::Client;
use super::send::Pauses;
use crate::bmc::TaskWait;
use crate::error::{Cause, Result};
use crate::http::{Request, StatusCode};
use crate::json::{Read, View};
use crate::model::{Health, ResourcePath, Task, TaskState};
use std::time::Duration;
use tokio::time::Instant;

impl Client {
    pub(super) async fn task_now(&self, path: &ResourcePath) -> Result<Task> {
        let request = Request::get(path.as_str());
        let reply = self.send(&request).await?;
        let json = self.parse(&request, &reply)?;
        let mut task = Task::read(View(&json));
        if task.path.is_empty() {
            task.path = path.clone();
        }
        if task.state.is_none() {
            // A monitor: 202 while it goes on, then what the request itself would have answered.
            let ended = reply.status != StatusCode::ACCEPTED;
            task.state = Some(if ended { TaskState::Completed } else { TaskState::Running });
        }
        Ok(task)
    }

    pub(super) async fn await_task(
        &self,
        path: &ResourcePath,
        wait: TaskWait,
        seen: &mut (dyn for<'t> FnMut(&'t Task) + Send),
    ) -> Result<Task> {
        let begin = Instant::now();
        let mut pauses =
            Pauses::new(wait.pause.min(Duration::from_millis(250)).max(Duration::from_millis(1)), wait.pause);
        let mut last: Option<Task> = None;
        loop {
            match self.task_now(path).await {
                Ok(task) => {
                    seen(&task);
                    if state_of(&task).is_final() {
                        return self.ended(path, task);
                    }
                    last = Some(task);
                }
                // A BMC that updates itself is gone for a while, and its tasks with it.
                Err(error) if matches!(error.cause, Cause::NotFound { .. }) && last.is_some() => {
                    let reason = "the task has vanished".to_owned();
                    return Err(self.fail(Cause::Unknown { request: format!("task {path}"), reason }));
                }
                Err(error) if error.cause.is_transient() => {}
                Err(error) => return Err(error),
            }
            if begin.elapsed() >= wait.limit {
                let last = last.unwrap_or_default();
                let percent = last.percent.unwrap_or(0).min(100) as u8;
                let state = state_of(&last).to_string();
                return Err(self.fail(Cause::TaskUnfinished {
                    path: path.clone(),
                    state,
                    percent,
                    after: wait.limit,
                }));
            }
            pauses.pause().await;
        }
    }

    fn ended(&self, path: &ResourcePath, task: Task) -> Result<Task> {
        let state = state_of(&task);
        let failed = state != TaskState::Completed || task.health == Some(Health::Critical);
        if !failed {
            return Ok(task);
        }
        let words: Vec<String> =
            task.messages.iter().filter_map(|m| m.text.clone().or(m.id.clone())).collect();
        let reason = self.http().quote(&words.join(" "));
        Err(self.fail(Cause::TaskFailed { path: path.clone(), state: state.to_string(), reason }))
    }
}

/// Job states of vendors, and how far it is where no state is said.
fn state_of(task: &Task) -> TaskState {
    match &task.state {
        Some(TaskState::Other(text)) => match text.as_str() {
            "CompletedOK" => TaskState::Completed,
            "Failed" | "CompletedWithErrors" | "RebootFailed" => TaskState::Exception,
            other if other.starts_with("Completed") => TaskState::Completed,
            _ => TaskState::Running,
        },
        Some(state) => state.clone(),
        None if task.percent == Some(100) => TaskState::Completed,
        None => TaskState::Running,
    }
}
