/* Preloaded into a daemon: a thread that gets SIGUSR1 forks, wherever it is, and both copies go on. */
#include <signal.h>
#include <unistd.h>

static void on_signal(int signal)
{
    (void)signal;
    (void)fork();
}

__attribute__((constructor)) static void prepare(void)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigaction(SIGUSR1, &action, 0);
}
