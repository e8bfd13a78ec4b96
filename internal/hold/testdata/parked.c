/* Stand-ins for what a runtime starts.
 *
 * parked [-host] [-sibling] FIFO PROGRAM ARGS...: forks; the child takes a network
 *   namespace of its own, tells its pid, waits until FIFO is opened for writing, and
 *   executes PROGRAM. The parent waits for the child, as a shim does, and ends as it
 *   did: with its code, or 100 + its signal. -host: no namespace of its own.
 *   -sibling: not the first thread but another executes PROGRAM.
 * stamp FILE [SECONDS]: writes the time, in ns of CLOCK_MONOTONIC, to FILE; sleeps.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char **program;

static void *run(void *unused) {
  (void)unused;
  execv(program[0], program);
  _exit(3);
}

static int parked(char **argv) {
  int host = 0, sibling = 0, tell[2];
  for (;; argv++) {
    if (!strcmp(argv[0], "-host")) host = 1;
    else if (!strcmp(argv[0], "-sibling")) sibling = 1;
    else break;
  }
  program = argv + 1;
  if (pipe2(tell, O_CLOEXEC)) return 1;
  pid_t pid = fork();
  if (pid < 0) return 1;
  if (pid == 0) {
    if (!host && unshare(CLONE_NEWNET)) _exit(2);
    if (write(tell[1], "", 1) != 1) _exit(2);
    int fd;
    while ((fd = open(argv[0], O_RDONLY | O_CLOEXEC)) < 0) usleep(1000);
    if (sibling) {
      pthread_t thread;
      if (pthread_create(&thread, NULL, run, NULL)) _exit(2);
      for (;;) pause();
    }
    run(NULL);
  }
  char ready;
  if (read(tell[0], &ready, 1) != 1) return 1;
  printf("%d\n", pid);
  fflush(stdout);
  int status;
  if (waitpid(pid, &status, 0) != pid) return 1;
  return WIFSIGNALED(status) ? 100 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int stamp(char **argv) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  FILE *f = fopen(argv[0], "w");
  if (!f) return 4;
  fprintf(f, "%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
  fclose(f);
  if (argv[1]) sleep(atoi(argv[1]));
  return 7;
}

int main(int argc, char **argv) {
  if (argc >= 4 && !strcmp(argv[1], "parked")) return parked(argv + 2);
  if (argc >= 3 && !strcmp(argv[1], "stamp")) return stamp(argv + 2);
  return 64;
}
