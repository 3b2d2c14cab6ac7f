/* A compiler for the GPU of `run.c`, for tests: its machine code is a shared library that the host's compiler makes. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct { char* source; char* log; char* code; size_t code_bytes; } program;

int nvrtcVersion(int* major, int* minor) { *major = 12; *minor = 9; return 0; }
int nvrtcGetNumSupportedArchs(int* count) { *count = 1; return 0; }
int nvrtcGetSupportedArchs(int* to) { *to = 90; return 0; }
int nvrtcCreateProgram(void** made, const char* source, const char* name, int headers, const void* texts, const void* names) {
    (void)texts, (void)names;
    program.source = strdup(source);
    *made = &program;
    return strcmp(name, "actors.cu") == 0 && headers == 0 ? 0 : 3;
}

static char* read_all(const char* path, size_t* bytes) {
    FILE* file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    *bytes = (size_t)ftell(file);
    rewind(file);
    char* text = calloc(*bytes + 1, 1);
    if (fread(text, 1, *bytes, file) != *bytes) abort();
    fclose(file);
    return text;
}

int nvrtcCompileProgram(void* of, int count, const char* const* options) {
    (void)of;
    int for_90 = 0;
    for (int i = 0; i < count; i++) for_90 |= strcmp(options[i], "--gpu-architecture=sm_90") == 0;
    if (!for_90) return 5;
    char folder[] = "/tmp/fake-nvrtc-XXXXXX", path[64], command[512];
    if (!mkdtemp(folder)) return 11;
    snprintf(path, sizeof path, "%s/actors.cpp", folder);
    FILE* file = fopen(path, "w");
    fputs(program.source, file);
    fclose(file);
    snprintf(command, sizeof command,
             "cd %s && LD_LIBRARY_PATH= c++ -std=c++17 -O1 -w -ffp-contract=off -fno-finite-loops -shared -fPIC -fvisibility=hidden "
             "-pthread -o code.so actors.cpp 2> log",
             folder);
    const int status = system(command);
    size_t log_bytes = 0;
    snprintf(path, sizeof path, "%s/log", folder);
    program.log = read_all(path, &log_bytes);
    snprintf(path, sizeof path, "%s/code.so", folder);
    program.code = read_all(path, &program.code_bytes);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) == 0 && status == 0 ? 0 : 6;
}
int nvrtcGetProgramLogSize(void* of, size_t* bytes) { (void)of; *bytes = strlen(program.log) + 1; return 0; }
int nvrtcGetProgramLog(void* of, char* to) { (void)of; strcpy(to, program.log); return 0; }
int nvrtcGetCUBINSize(void* of, size_t* bytes) { (void)of; *bytes = program.code_bytes; return 0; }
int nvrtcGetCUBIN(void* of, char* to) { (void)of; memcpy(to, program.code, program.code_bytes); return 0; }
int nvrtcDestroyProgram(void** of) { *of = NULL; return 0; }
