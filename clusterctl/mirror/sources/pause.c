/* The process that holds a pod's namespaces: it waits to be told to end, and reaps whatever is left to it. */
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
  sigset_t waited;
  int status, signal;
  sigemptyset(&waited);
  sigaddset(&waited, SIGINT);
  sigaddset(&waited, SIGTERM);
  sigaddset(&waited, SIGCHLD);
  if (sigprocmask(SIG_BLOCK, &waited, NULL) != 0) return 1;
  for (;;) {
    if (sigwait(&waited, &signal) != 0) return 1;
    if (signal != SIGCHLD) return 0;
    while (waitpid(-1, &status, WNOHANG) > 0) {}
  }
}
