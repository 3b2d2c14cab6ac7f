/* A compiler that compiles nothing, for tests: it only tells what it could. */
#ifndef MAJOR
#define MAJOR 12
#endif
/* What it returns wherever it is asked to compile. */
#ifndef CODE
#define CODE 11
#endif
static const int architectures[] = {70, 75, 80, 86, 89, 90, 100, 120};
int nvrtcVersion(int* major, int* minor) { *major = MAJOR; *minor = 9; return 0; }
int nvrtcGetNumSupportedArchs(int* count) { *count = 8; return 0; }
int nvrtcGetSupportedArchs(int* to) { for (int i = 0; i < 8; i++) to[i] = architectures[i]; return 0; }
int nvrtcCreateProgram(void) { return CODE; }
int nvrtcCompileProgram(void) { return CODE; }
int nvrtcGetProgramLogSize(void) { return CODE; }
int nvrtcGetProgramLog(void) { return CODE; }
int nvrtcGetCUBINSize(void) { return CODE; }
int nvrtcGetCUBIN(void) { return CODE; }
int nvrtcDestroyProgram(void) { return CODE; }
